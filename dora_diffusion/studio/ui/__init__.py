"""The studio's web page, built with Gradio over ``studio.jobs`` and ``studio.pictures``."""
