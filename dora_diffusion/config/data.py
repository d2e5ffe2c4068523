"""Which photos, what they are called, and how they are looked at."""

import re
from pathlib import Path
from typing import Literal

from pydantic import model_validator

from dora_diffusion.config.fields import Settings, free, identity
from dora_diffusion.errors import ConfigError


class DataConfig(Settings):
    """The photos of the subject."""

    instance_data_dir: Path | None = identity(None, "folder with the photos of the subject (three to twenty)")
    instance_prompt: str | None = identity(
        None,
        "prompt that names the subject, e.g. 'a photo of sks dog' or 'a photo of {trigger} {class}'; left out, it is "
        "made from trigger and class noun",
    )
    trigger: str = identity("sks", "rare word that will stand for the subject", min_length=1)
    class_noun: str | None = identity(None, "what the subject is, in one or two words: dog, teapot, backpack")
    resolution: int | None = identity(
        None,
        "side of the square training picture in pixels, a multiple of 8; left out, the model's own",
        ge=32,
        le=4096,
    )
    aspect_ratio_buckets: str | None = identity(
        None,
        "shapes that photos are cropped to instead of a square, each to the nearest: 'auto' (about resolution * "
        "resolution pixels), or heights and widths '672,1568;688,1504'; a batch has one shape",
    )
    repeats: int = identity(1, "how often a pass over the photos takes each", ge=1)
    captions: Literal["auto", "sidecar", "metadata", "prompt"] = identity(
        "auto",
        "what photos are called: sidecar (01.txt beside 01.jpg), metadata (metadata.jsonl in the folder), prompt (the "
        "instance prompt for all), or auto: the first of these that each photo has",
    )
    caption_column: str | None = identity(
        None, "key of the captions in metadata.jsonl, beside file_name; left out, 'text'", min_length=1
    )
    caption_dropout: float = identity(0.0, "share of the samples that get the empty prompt", ge=0, le=1)
    caption_shuffle: bool = identity(False, "put a caption's comma-separated tags into a fresh order each step")
    caption_keep_tags: int = identity(0, "how many of the first tags caption_shuffle leaves in place", ge=0)
    mask_data_dir: Path | None = identity(
        None, "folder with a mask for each photo, of the same name: white counts in the loss, black does not"
    )
    use_alpha_mask: bool = identity(False, "take the photos' own transparency as their masks")
    unmasked_weight: float = identity(0.1, "what the loss outside of a mask counts; inside, it is 1", ge=0, le=1)
    center_crop: bool = identity(False, "always crop the centre; left out, a fresh random crop is drawn each step")
    random_flip: bool = identity(False, "mirror half of the pictures, drawn afresh each step")
    cache_latents: bool = free(True, "encode a photo once when neither its crop nor anything else about it changes")
    cache_latents_to_disk: bool = free(
        False, "keep such encodings under DORA_HOME too, for later runs on the same photos and base"
    )

    @model_validator(mode="after")
    def _resolution_fits_the_latents(self) -> "DataConfig":
        if self.resolution is not None and self.resolution % 8:
            raise ConfigError(f"resolution must be a multiple of 8, got {self.resolution}.")
        return self

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> "DataConfig":
        """A setting that another one makes meaningless is refused."""
        if self.caption_keep_tags and not self.caption_shuffle:
            raise ConfigError("caption_keep_tags says what caption_shuffle leaves in place: add --caption_shuffle.")
        if self.caption_column is not None and self.captions in ("sidecar", "prompt"):
            raise ConfigError(
                f"caption_column is a key of metadata.jsonl, which --captions {self.captions} does not read: "
                "use --captions metadata or auto."
            )
        if self.mask_data_dir is not None and self.use_alpha_mask:
            raise ConfigError("Masks come from mask_data_dir or from the photos (use_alpha_mask), not from both.")
        if self.unmasked_weight != 0.1 and not self.has_masks():
            raise ConfigError("unmasked_weight needs masks: give --mask_data_dir or --use_alpha_mask.")
        if self.cache_latents_to_disk and not self.cache_latents:
            raise ConfigError("cache_latents_to_disk keeps what cache_latents does, which is off: switch it on.")
        return self

    @model_validator(mode="after")
    def _buckets_can_be_read(self) -> "DataConfig":
        self.given_buckets()
        return self

    def given_buckets(self) -> list[tuple[int, int]] | None:
        """Heights and widths of ``aspect_ratio_buckets``; None where they are left out or automatic.

        Raises:
            ConfigError: it is written otherwise, or a side is no multiple of 8 from 32 to 4096.
        """
        text = self.aspect_ratio_buckets
        if text is None or text.strip() == "auto":
            return None
        shapes = [_shape(pair) for pair in text.strip().strip(";").split(";")]
        if len(set(shapes)) < len(shapes):
            raise ConfigError(f"aspect_ratio_buckets holds a shape twice, got {text!r}.")
        return shapes

    def has_masks(self) -> bool:
        """Whether the loss is masked."""
        return self.mask_data_dir is not None or self.use_alpha_mask

    def fill(self, text: str) -> str:
        """``text`` with its placeholders ``{trigger}`` and ``{class}`` filled in.

        Raises:
            ConfigError: it names the class, and no class noun was given.
        """
        if "{class}" in text and not self.class_noun:
            raise ConfigError(f"{text!r} needs a class noun for {{class}}: give --class_noun (for example: dog).")
        return text.replace("{trigger}", self.trigger).replace("{class}", self.class_noun or "")

    def prompt(self) -> str:
        """The instance prompt, written out.

        Raises:
            ConfigError: neither an instance prompt nor a class noun was given.
        """
        if self.instance_prompt:
            return self.fill(self.instance_prompt)
        if not self.class_noun:
            raise ConfigError(
                "What is the subject? Give --class_noun (for example: --class_noun dog) or --instance_prompt "
                "'a photo of sks dog'."
            )
        return f"a photo of {self.trigger} {self.class_noun}"


def _shape(pair: str) -> tuple[int, int]:
    """Height and width of '672,1568'."""
    found = re.fullmatch(r"\s*(\d+)\s*,\s*(\d+)\s*", pair)
    shape = (int(found[1]), int(found[2])) if found else (0, 0)
    if not all(32 <= side <= 4096 and side % 8 == 0 for side in shape):
        raise ConfigError(
            "aspect_ratio_buckets is 'auto', or heights and widths in pixels, multiples of 8 from 32 to 4096, as in "
            f"'672,1568;688,1504'; got {pair!r}."
        )
    return shape
