"""A loaded base model: its parts, and the family that knows how they fit together."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from dora_diffusion.models.schedule import schedule_facts
from dora_diffusion.models.words import Word, add_word, remove_word

ReadConfig = Callable[[str], Mapping[str, Any]]  # a part's name ("unet") to its configuration; empty if it has none
Shapes = Mapping[str, tuple[int, ...]]  # of every tensor in a checkpoint file, by its name there


class Family(Protocol):
    """What differs between Stable Diffusion 1.x, 2.x, XL: one file each.

    ``pipeline`` is the class in diffusers, ``parts`` what a complete model lists in its ``model_index.json``.
    """

    name: str
    pipeline: str
    parts: tuple[str, ...]

    def recognises(self, index: Mapping[str, Any], config: ReadConfig) -> bool:
        """Whether a ``model_index.json``, and the parts' configurations beside it, describe this family."""

    def recognises_checkpoint(self, shapes: Shapes) -> bool:
        """Whether these tensors are a single-file checkpoint of this family, in its original layout."""

    def configuration(self, prediction_type: str | None) -> str:
        """The folder in ``configs`` that describes such a checkpoint; None: nobody said what it predicts."""

    def load(
        self,
        source: str,
        *,
        revision: str | None,
        variant: str | None,
        dtype: torch.dtype,
        use_safetensors: bool | None,
    ) -> Any:
        """The diffusers pipeline, on the CPU."""

    def load_checkpoint(self, file: Path, configuration: Path, *, dtype: torch.dtype) -> Any:
        """The pipeline of a single-file checkpoint, on the CPU. ``configuration``: a folder without weights."""

    def adaptable(self, pipe: Any) -> Mapping[str, nn.Module]:
        """Component name to the models that can carry an adapter."""

    def is_used(self, pipe: Any, component: str, path: str) -> bool:
        """Whether anything the UNet is given, or predicts, depends on the layer at ``path`` of a component."""

    def layer_name(self, component: str, path: str) -> str:
        """The canonical name of a layer: what stands in files."""

    def preset(self, component: str, name: str) -> str | None:
        """The regex behind a target preset, or None if it is no preset."""

    def encode_prompts(self, pipe: Any, prompts: list[str]) -> dict[str, Tensor]:
        """The UNet's conditioning: ``encoder_hidden_states`` (b, tokens, dim) and whatever else the family needs."""

    def framing(self, framing: Tensor) -> dict[str, Tensor]:
        """What the UNet is told of sizes and crops.

        Args:
            framing: (b, 6), pixels: height and width of the photo, top and left of the crop, height and width of it.
        """

    def unet_arguments(self, conditioning: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Any]:
        """The conditioning (prompts' and framing's) as the forward of a UNet in ``dtype`` takes it."""


@dataclass
class BaseModel:
    """A base model ready for training or sampling.

    Args:
        name: what the user called it ("toybox", a hub name, a folder, a file).
        family: how its parts fit together.
        pipe: the diffusers pipeline that owns the parts.
        attention: the attention backend in use, in words.
        word: what it learnt for a subject, beside its own vocabulary.
    """

    name: str
    family: Family
    pipe: Any
    attention: str = ""
    word: Word | None = None

    @property
    def unet(self) -> Any:
        return self.pipe.unet

    @property
    def vae(self) -> Any:
        return self.pipe.vae

    @property
    def device(self) -> torch.device:
        return self.unet.device

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the UNet."""
        return self.unet.dtype

    @property
    def vae_scale(self) -> int:
        """Pixels a latent pixel stands for, along one side."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def native_resolution(self) -> int:
        """The side of the pictures the model was trained on, in pixels."""
        return int(self.unet.config.sample_size) * self.vae_scale

    @property
    def prediction_type(self) -> str:
        """What the UNet predicts: "epsilon" or "v_prediction"."""
        return str(self.pipe.scheduler.config.prediction_type)

    def schedule_facts(self) -> dict[str, str]:
        """What an adapter remembers of the noise schedule, and ``load_base`` takes back through ``schedule_from``."""
        return schedule_facts(self.pipe.scheduler)

    def adaptable(self) -> Mapping[str, nn.Module]:
        return self.family.adaptable(self.pipe)

    def is_used(self, component: str, path: str) -> bool:
        """False for a layer whose training would change nothing."""
        return self.family.is_used(self.pipe, component, path)

    def layer_name(self, component: str, path: str) -> str:
        return self.family.layer_name(component, path)

    def preset(self, component: str, name: str) -> str | None:
        return self.family.preset(component, name)

    def encode_prompts(self, prompts: list[str]) -> dict[str, Tensor]:
        """The UNet's conditioning for ``prompts``; gradients flow where the text encoder carries an adapter."""
        return self.family.encode_prompts(self.pipe, [self.marked(prompt) for prompt in prompts])

    def marked(self, prompt: str) -> str:
        """``prompt`` as the pipeline takes it: a word that was learnt is marked."""
        return prompt if self.word is None else self.word.marked(prompt)

    def text_encoders(self) -> list[str]:
        """Their components' names."""
        return [component for component in self.adaptable() if component.startswith("text_encoder")]

    def learn_word(self, trigger: str, rows: Mapping[str, Tensor]) -> None:
        """From now on ``trigger`` in a prompt stands for tokens of its own, whose vectors are ``rows``.

        A word learnt before is forgotten.

        Args:
            rows: (n, dim) by component, one for every text encoder.

        Raises:
            ModelError: they do not fit, or the tokenizer has such tokens already.
        """
        self.forget_word()
        self.word = add_word(self.pipe, trigger, rows)

    def forget_word(self) -> None:
        """Tokenizers and embeddings are again those that were loaded."""
        if self.word is not None:
            remove_word(self.pipe, self.word)
            self.word = None

    def framing(self, framing: Tensor) -> dict[str, Tensor]:
        """What the UNet is told of sizes and crops (b, 6); nothing in most families."""
        return self.family.framing(framing)

    def predict(self, noisy_latents: Tensor, timesteps: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        """The UNet's prediction (b, c, h, w); it runs in its own precision, whatever it is given."""
        arguments = self.family.unet_arguments(conditioning, self.dtype)
        return self.unet(noisy_latents.to(self.dtype), timesteps, **arguments, return_dict=False)[0]

    @torch.no_grad()
    def encode_images(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latents' distribution, unscaled.

        Shapes: (b, 3, h, w) in [-1, 1] to two (b, c, h / 8, w / 8), float32.
        """
        posterior = self.vae.encode(pixel_values.to(self.vae.device, self.vae.dtype)).latent_dist
        return posterior.mean.float(), posterior.std.float()

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> Tensor:
        """Pictures (b, 3, h, w) in [0, 1], float32, of scaled latents."""
        unscaled = latents.to(self.vae.dtype) / self.vae.config.scaling_factor
        return (self.vae.decode(unscaled).sample.float() / 2 + 0.5).clamp(0, 1)

    def freeze(self) -> None:
        """Switch every part's gradients off."""
        for part in (self.unet, self.vae, *self.adaptable().values()):
            part.requires_grad_(False)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "BaseModel":
        """Move the model. ``dtype`` casts UNet and text encoders; the autoencoder stays float32: it is used rarely."""
        for part in self.adaptable().values():
            part.to(device, dtype) if dtype else part.to(device)
        self.vae.to(device)
        return self
