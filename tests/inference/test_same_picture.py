"""One adapter, four ways to use it, one result: live, merged, a written pipeline, plain diffusers."""

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from dora_diffusion.adapters import inject_state
from dora_diffusion.config import MergeConfig
from dora_diffusion.formats import WEIGHTS_NAME
from dora_diffusion.formats.diffusers_format import DIFFUSERS
from dora_diffusion.inference import MergedWeights, merge
from dora_diffusion.models import load_base, resolve


def prediction(pipe) -> torch.Tensor:
    """What the text encoder and the UNet make of a fixed input: everything an adapter can touch."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        tokens = pipe.tokenizer(
            ["a photo of sks teapot on the beach"], padding="max_length", max_length=32, return_tensors="pt"
        ).input_ids
        hidden = pipe.text_encoder(tokens)[0]
        noise = torch.randn(1, 8, 16, 16, generator=generator)
        return pipe.unet(noise, torch.tensor([400]), encoder_hidden_states=hidden).sample


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours - theirs).norm() / theirs.norm()).item()


def live_prediction(state) -> torch.Tensor:
    base = load_base("toybox")
    inject_state(base, state)
    return prediction(base.pipe)


def plain_diffusers(folder) -> StableDiffusionPipeline:
    pipe = StableDiffusionPipeline.from_pretrained(resolve("toybox"), dtype=torch.float32)
    pipe.load_lora_weights(folder)
    return pipe


@pytest.fixture
def run_folder(trained, tmp_path):
    DIFFUSERS.write(trained, tmp_path / WEIGHTS_NAME)
    return tmp_path


def test_the_adapter_changes_the_prediction(trained, toybox):
    assert relative(live_prediction(trained), prediction(toybox.pipe)) > 0.01


def test_live_merged_and_plain_diffusers_agree(trained, run_folder, toybox):
    live = live_prediction(trained)
    MergedWeights(toybox).switch(trained)
    assert relative(prediction(toybox.pipe), live) <= 1e-5
    assert relative(prediction(plain_diffusers(run_folder)), live) <= 1e-5


def test_convolutions_and_mlp_too(trained_everywhere, tmp_path, toybox):
    DIFFUSERS.write(trained_everywhere, tmp_path / WEIGHTS_NAME)
    live = live_prediction(trained_everywhere)
    MergedWeights(toybox).switch(trained_everywhere)
    assert relative(prediction(toybox.pipe), live) <= 1e-5
    assert relative(prediction(plain_diffusers(tmp_path)), live) <= 1e-5


def test_diffusers_holds_every_tensor_of_the_file(trained, run_folder):
    """transformers 5 silently keeps the base's norms for magnitudes under another key: compare every parameter."""
    pipe = plain_diffusers(run_folder)
    loaded = {
        f"{component}.{name}": value
        for component in ("unet", "text_encoder")
        for name, value in getattr(pipe, component).named_parameters()
        if "lora_" in name
    }
    file = load_file(run_folder / WEIGHTS_NAME)
    assert len(loaded) == len(file)
    for key, tensor in file.items():
        name = key.replace("text_encoder.text_model.", "text_encoder.").replace(".weight", "")
        (found,) = [value for other, value in loaded.items() if f"{name}." in f"{other.replace('.text_model.', '.')}."]
        assert torch.equal(found.view(tensor.shape), tensor), key


def test_the_written_pipeline_is_plain_and_the_same(trained, run_folder, tmp_path):
    live = live_prediction(trained)
    folder = merge(MergeConfig(adapter=run_folder, output_dir=tmp_path / "merged"))
    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    assert relative(prediction(pipe), live) <= 1e-5
    assert not [name for name, _ in pipe.unet.named_parameters() if "lora" in name or "base" in name]


def test_a_pipeline_merged_at_strength_zero_is_the_base(run_folder, tmp_path, toybox):
    folder = merge(MergeConfig(adapter=run_folder, output_dir=tmp_path / "merged", strength=0))
    merged = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    for name, value in toybox.unet.state_dict().items():
        assert torch.equal(merged.unet.state_dict()[name], value), name


def test_reading_back_gives_the_same_merged_weights(trained, run_folder):
    """alpha is folded into B: the numbers change, the adapter does not."""
    from dora_diffusion.adapters import merged_weights
    from dora_diffusion.formats import load_adapter

    read = load_adapter(run_folder)
    assert read.kind == trained.kind
    assert read.base_name == "toybox"
    assert read.metadata == trained.metadata
    weights = {name: torch.randn(layer.weight_shape) for name, layer in trained.layers.items()}
    again = dict(merged_weights(read, weights))
    for name, expected in merged_weights(trained, weights):
        assert relative(again[name], expected) <= 1e-6
