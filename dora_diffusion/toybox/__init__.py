"""The embedded base model: a small Stable Diffusion of our own, the world it was trained on, and its judge, the eye."""
