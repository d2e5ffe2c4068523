"""A loaded base: encoding, decoding, names, and the digest that tells bases apart."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dora_diffusion.adapters.plan import plan_layers
from dora_diffusion.config import AdapterConfig
from dora_diffusion.data.views import Photos
from dora_diffusion.models import BaseModel, base_digest, choose_attention, load_base


@pytest.fixture(scope="module")
def base(tiny_folder: Path) -> BaseModel:
    return load_base(str(tiny_folder))


def test_encoding_and_decoding_are_diffusers_own(base: BaseModel, tiny: Any) -> None:
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mean, std = base.encode_images(pixels)
    with torch.no_grad():
        posterior = tiny.vae.encode(pixels).latent_dist
        theirs = tiny.vae.decode(posterior.mean).sample
    assert torch.equal(mean, posterior.mean) and torch.equal(std, posterior.std)
    assert tuple(mean.shape) == (2, 4, 8, 8) and not mean.requires_grad
    pictures = base.decode_latents(mean * base.vae.config.scaling_factor)
    expected = tiny.image_processor.postprocess(theirs, output_type="pt")
    torch.testing.assert_close(pictures, expected, rtol=1e-4, atol=1e-5)
    assert pictures.min() >= 0 and pictures.max() <= 1 and not pictures.requires_grad


def test_a_photo_survives_the_round_trip(subject_photos: Path) -> None:
    toybox = load_base("toybox", dtype=torch.bfloat16)
    photos = Photos([subject_photos / "grass.jpg"], 128, center_crop=True, random_flip=False, name="instance")
    pixels = photos.pixel_values(photos.view(0, 0))[None]
    mean, _ = toybox.encode_images(pixels)
    again = toybox.decode_latents(mean * toybox.vae.config.scaling_factor)
    error = torch.nn.functional.mse_loss(again, pixels / 2 + 0.5).item()
    spread = (pixels / 2 + 0.5).var().item()  # the error of a picture of one colour
    assert mean.dtype == again.dtype == torch.float32
    assert error < 0.1 * spread


def test_prompts_are_encoded_as_the_pipeline_does(base: BaseModel, tiny: Any) -> None:
    prompts = ["a photo of sks dog", "", "a dog " * 60]
    with torch.no_grad():
        ours = base.encode_prompts(prompts)["encoder_hidden_states"]
        theirs, _ = tiny.encode_prompt(prompts, "cpu", 1, do_classifier_free_guidance=False)
    assert tuple(ours.shape) == (3, 32, 16) and torch.equal(ours, theirs)


def test_names_of_text_layers_contain_text_model(base: BaseModel) -> None:
    text = base.adaptable()["text_encoder"]
    names = [
        base.layer_name("text_encoder", path) for path, layer in text.named_modules() if isinstance(layer, nn.Linear)
    ]
    assert len(names) >= 12 and all(name.startswith("text_encoder.text_model.encoder.layers.") for name in names)
    assert all(name.count("text_model") == 1 for name in names)
    # transformers 4 has the level in its own paths
    old = base.layer_name("text_encoder", "text_model.encoder.layers.0.self_attn.q_proj")
    assert old == base.layer_name("text_encoder", "encoder.layers.0.self_attn.q_proj") and old in names
    assert base.layer_name("unet", "down_blocks.0.attn1.to_q") == "unet.down_blocks.0.attn1.to_q"


def test_presets_grow(base: BaseModel) -> None:
    for component, root in base.adaptable().items():
        layers = [path for path, layer in root.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
        names = [base.layer_name(component, path) for path in layers]
        found = []
        for preset in ("attn", "attn-mlp", "full"):
            regex = base.preset(component, preset)
            assert regex is not None
            found.append({name for name in names if re.search(regex, name)})
        assert found[0] < found[1] <= found[2] <= set(names)
        assert all("attn" in name for name in found[0])
        assert base.preset(component, "no such preset") is None


def test_freeze_leaves_nothing_to_train(tiny_folder: Path) -> None:
    base = load_base(str(tiny_folder))
    base.freeze()
    parts = (base.unet, base.vae, *base.adaptable().values())
    assert not any(parameter.requires_grad for part in parts for parameter in part.parameters())


def test_moving_keeps_the_autoencoder_precise(tiny_folder: Path) -> None:
    base = load_base(str(tiny_folder))
    assert base.to("cpu", torch.float16) is base
    assert {part.dtype for part in base.adaptable().values()} == {torch.float16} and base.vae.dtype == torch.float32
    base.to("cpu")
    assert base.dtype == torch.float16


def test_the_digest_changes_with_any_tensor_and_with_nothing_else(tiny_folder: Path, sharded_folder: Path) -> None:
    base = load_base(str(tiny_folder))
    digest = base_digest(base)
    assert len(digest) == 16 and int(digest, 16)
    assert digest == base_digest(load_base(str(tiny_folder))) == base_digest(load_base(str(sharded_folder)))
    base.freeze()
    choose_attention(base.unet, "sdpa")
    base.unet.enable_gradient_checkpointing()
    assert base_digest(base) == digest
    parts = {"unet": base.unet, "vae": base.vae, **base.adaptable()}
    digests = {digest}
    tensors = [
        (f"{part}.{name}", tensor) for part, model in parts.items() for name, tensor in model.state_dict().items()
    ]
    for name, tensor in tensors:
        flat = tensor.view(-1)
        place = int(flat.numel() * 0.37)  # between the entries that are looked at one by one
        before = flat[place].item()
        flat[place] = before + 1e-3
        changed = base_digest(base)
        assert changed not in digests, name
        digests.add(changed)
        flat[place] = before
    assert base_digest(base) == digest and len(digests) == len(tensors) + 1


def test_the_digest_reads_the_last_entry_of_a_tensor_too_long_for_float32(base: BaseModel) -> None:
    """SD 1.5's token embedding has 38 million entries: in float32 the last position rounds to one past the end."""
    long = torch.zeros(2**25 - 1, dtype=torch.int8)
    base.unet.register_buffer("long", long)
    digest = base_digest(base)
    long[-1], long[0] = 1, -1
    assert base_digest(base) != digest


def test_other_weights_of_the_same_shape_have_another_digest(base: BaseModel, tiny_folder: Path) -> None:
    assert base_digest(load_base(str(tiny_folder), dtype=torch.bfloat16)) != base_digest(base)


def test_a_rank_above_a_layers_size_is_clamped_and_said_once(base: BaseModel, caplog: pytest.LogCaptureFixture) -> None:
    plans = plan_layers(base, AdapterConfig(rank=1000, targets="full", train_text_encoder=True))
    sizes = {plan.name: min(plan.module.state_dict()["weight"].flatten(1).shape) for plan in plans}
    assert len(plans) > 30 and {plan.name: plan.rank for plan in plans} == sizes
    (record,) = caplog.records
    told = f"rank 1000 is above the size of {len(plans)} layers and clamped there, first {plans[0].name}."
    assert record.getMessage() == told
    assert {plan.scale for plan in plans} == {1.0}
    caplog.clear()
    assert {plan.rank for plan in plan_layers(base, AdapterConfig(rank=8))} == {8} and not caplog.records
