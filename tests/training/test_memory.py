"""Parts of the base that leave the GPU, and activations that are computed again. The GPU here is one in name only."""

from pathlib import Path
from typing import Any

import pytest
import torch
from drawn import draw
from PIL import Image
from torch import nn
from training_runs import PHOTOS, run_it, small_config

from dora_diffusion.data.latents import Latents
from dora_diffusion.data.photos import list_photos
from dora_diffusion.data.views import Photos
from dora_diffusion.models import BaseModel
from dora_diffusion.training import assembly
from dora_diffusion.training.events import Note
from dora_diffusion.training.memory import Parts, idle_parts, recompute_activations


class Part(nn.Module):
    """A part that notes where it is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[str] = []

    def to(self, device: Any) -> "Part":  # type: ignore[override]
        self.sent.append(str(device))
        return self


class Base:
    """As much of a base as ``Parts`` asks for."""

    def __init__(self, device: str):
        self.device = torch.device(device)
        self.unet, self.vae, self.text_encoder, self.text_encoder_2 = Part(), Part(), Part(), Part()

    def adaptable(self) -> dict[str, nn.Module]:
        return {"unet": self.unet, "text_encoder": self.text_encoder, "text_encoder_2": self.text_encoder_2}


def sent(base: Base) -> dict[str, list[str]]:
    return {name: part.sent for name, part in {**base.adaptable(), "vae": base.vae}.items()}


@pytest.mark.parametrize(
    ("needed", "idle"),
    [
        ({"unet", "vae"}, ["text_encoder", "text_encoder_2"]),
        ({"unet"}, ["text_encoder", "text_encoder_2", "vae"]),
        ({"unet", "text_encoder"}, ["text_encoder_2", "vae"]),
        ({"unet", "text_encoder", "text_encoder_2", "vae"}, []),
        ({"text_encoder", "text_encoder_2", "vae"}, []),  # the UNet is needed, trained or not
    ],
)
def test_what_is_not_needed_leaves(needed: set[str], idle: list[str]) -> None:
    base: Any = Base("cuda")
    parts = Parts(base, needed)
    assert parts.idle == idle == list(idle_parts(base, needed))
    parts.leave()
    assert sent(base) == {name: ["cpu"] * (name in idle) for name in sent(base)}


def test_everything_is_back_for_previews_and_leaves_again() -> None:
    base: Any = Base("cuda")
    parts = Parts(base, {"unet"})
    parts.leave()
    with pytest.raises(KeyError), parts.all_here():
        assert sent(base) == {"unet": [], **dict.fromkeys(["text_encoder", "text_encoder_2", "vae"], ["cpu", "cuda"])}
        raise KeyError  # also when a preview fails
    assert base.vae.sent == base.text_encoder.sent == ["cpu", "cuda", "cpu"] and base.unet.sent == []


def test_on_a_cpu_nothing_is_moved() -> None:
    base: Any = Base("cpu")
    parts = Parts(base, {"unet"})
    parts.leave()
    with parts.all_here():
        pass
    assert parts.idle == [] and not any(sent(base).values())


# ------------------------------------------------------------------------------------------------- filling
def latents(center_crop: bool, random_flip: bool, cache: bool = True) -> tuple[Latents, list[torch.Tensor]]:
    encoded: list[torch.Tensor] = []

    def encode(pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        encoded.append(pixel_values)
        return pixel_values[:, :1, ::8, ::8], torch.zeros_like(pixel_values[:, :1, ::8, ::8])

    photos = Photos(list_photos(PHOTOS), 32, center_crop=center_crop, random_flip=random_flip, name="instance")
    return Latents(photos, encode, 1.0, cache), encoded


@pytest.mark.parametrize("random_flip", [False, True])
def test_all_views_are_encoded_at_once_and_never_again(random_flip: bool) -> None:
    lazy, _ = latents(True, random_flip)
    expected = draw(lazy, 0, list(range(40)))
    ready, encoded = latents(True, random_flip)
    assert ready.can_be_filled()
    ready.fill()
    assert len(encoded) == len(ready.photos) * (2 if random_flip else 1)
    assert torch.equal(draw(ready, 0, list(range(40))), expected)
    assert len(encoded) == len(ready.photos) * (2 if random_flip else 1)


def test_random_crops_and_uncached_pictures_cannot_be_encoded_for_all(tmp_path: Path) -> None:
    crops = latents(True, False)[0].photos
    assert crops.fixed_views() is not None
    Image.new("RGB", (40, 32)).save(tmp_path / "wide.png")
    wide = Photos([*list_photos(PHOTOS), tmp_path / "wide.png"], 32, center_crop=False, random_flip=False, name="x")
    assert wide.fixed_views() is None
    assert not latents(True, False, cache=False)[0].can_be_filled()


def test_a_run_fills_the_cache_where_that_frees_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole run's way through it, with a device that is no CPU in name alone: the same adapter."""
    data = {"center_crop": True}
    run_it(small_config(tmp_path / "cpu", 2, data=data))
    heard: list[str] = []
    moved: list[list[str]] = []

    def parts(base: BaseModel, trained: set[str], sources: list[Latents], tell: Any) -> Parts:
        with monkeypatch.context() as patch:
            patch.setattr(BaseModel, "device", property(lambda self: torch.device("meta")))
            made = plain(base, trained, sources, tell)
        moved.append(made.idle)
        monkeypatch.setattr(base.vae, "encode", lambda *_: pytest.fail("the autoencoder was needed"))
        return made

    plain = assembly._parts
    monkeypatch.setattr(assembly, "_parts", parts)
    run_it(
        small_config(tmp_path / "gpu", 2, data=data), lambda e: heard.append(e.message) if isinstance(e, Note) else None
    )
    assert moved == [["text_encoder", "vae"]]
    assert heard == ["Encoding every picture once, so that the autoencoder can leave the GPU."]
    assert (tmp_path / "gpu" / "pytorch_lora_weights.safetensors").read_bytes() == (
        tmp_path / "cpu" / "pytorch_lora_weights.safetensors"
    ).read_bytes()


# ------------------------------------------------------------------------------------------------- recomputing
def test_trained_text_encoders_recompute_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their layers run twice a step, dropout stays off, and the adapter is the same."""
    from transformers.models.clip.modeling_clip import CLIPMLP

    calls = [0]
    forward = CLIPMLP.forward

    def counted(self: nn.Module, *given: Any) -> Any:
        calls[0] += torch.is_grad_enabled()
        assert not self.training
        return forward(self, *given)

    monkeypatch.setattr(CLIPMLP, "forward", counted)
    adapter = {"train_text_encoder": True}
    run_it(small_config(tmp_path / "plain", 2, adapter=adapter))
    once = calls[0]
    run_it(small_config(tmp_path / "run", 2, adapter=adapter, run={"gradient_checkpointing": True}))
    assert calls[0] - once == 2 * once > 0
    name = "pytorch_lora_weights.safetensors"
    assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()


def test_a_frozen_text_encoder_is_left_alone(toybox: BaseModel) -> None:
    recompute_activations(toybox, {"unet"})
    assert toybox.unet.is_gradient_checkpointing
    assert not any(getattr(layer, "gradient_checkpointing", False) for layer in toybox.pipe.text_encoder.modules())
