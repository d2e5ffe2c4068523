"""Prior preservation."""

from pathlib import Path

from dora_diffusion.config.fields import Settings, free, identity


class PriorConfig(Settings):
    """Prior preservation: pictures of the class, made by the base, keep the class from turning into the subject."""

    with_prior_preservation: bool = identity(False, "add the prior-preservation term")
    class_prompt: str | None = identity(None, "prompt of the class images; left out, 'a photo of a <class noun>'")
    class_data_dir: Path | None = free(None, "folder with class images of your own; missing ones are made by the base")
    num_class_images: int = identity(100, "how many class images to use", ge=1)
    prior_loss_weight: float = identity(1.0, "weight of the prior term", ge=0)
    sample_batch_size: int = free(4, "class images made at once", ge=1)
    class_images_steps: int = identity(25, "sampling steps of a class image", ge=1)
    class_images_guidance: float = identity(5.0, "guidance scale of a class image", ge=0)
    class_images_seed: int = identity(0, "seed of the first class image; each next one adds 1", ge=0)
