"""Every format, every family: what is written is what is read, in every precision."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from full_size import COUNTS, full_size_shapes, full_size_state
from safetensors.torch import load_file
from small_adapters import all_parts, case
from small_models import FAMILIES

from dora_diffusion.adapters import AdapterState
from dora_diffusion.errors import AdapterError, ConfigError, FormatError
from dora_diffusion.formats import load_adapter
from dora_diffusion.formats.format import Base, Format
from dora_diffusion.formats.names import Layout, canonical
from dora_diffusion.formats.parts import part_of
from dora_diffusion.formats.rounding import BOUNDS
from dora_diffusion.registry import FORMATS

OURS = ("diffusers", "peft", "kohya", "comfyui", "dual", "diff")


def written(name: str, state: AdapterState, folder: Path, base: Base | None = None, precision: str = "fp32") -> Path:
    """The file (or PEFT's folder) of ``state`` in a format."""
    format_: Format = FORMATS.load(name)
    path = folder / f"{name}-{precision}{format_.suffix}"
    format_.write(state, path, base, precision)
    return path


@pytest.mark.parametrize("targets", ["attn", "attn-mlp", "full"])
@pytest.mark.parametrize("texts", [True, False], ids=["with text encoders", "UNet only"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", OURS)
def test_fp32_is_read_back_within_rounding(name: str, family: str, texts: bool, targets: str, tmp_path: Path) -> None:
    for kind in ("dora", "lora"):
        trained = case(family, kind, targets, texts)
        back = load_adapter(written(name, trained.state, tmp_path, trained.base))
        of_weight, of_change = trained.errors(back)
        assert of_weight <= 1e-6 and of_change <= 1e-4
        assert back.kind == ("lora" if name == "diff" else kind)
        assert back.metadata == trained.state.metadata and back.fingerprint == trained.state.fingerprint
        assert back.base_name == trained.state.base_name


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("name", OURS)
def test_half_precision_stays_within_the_told_bound(name: str, precision: str, tmp_path: Path) -> None:
    trained = case("sdxl", "dora")
    path = written(name, trained.state, tmp_path, trained.base, precision)
    _, of_change = trained.errors(load_adapter(path))
    assert BOUNDS["fp32"] < of_change <= BOUNDS[precision]


@pytest.mark.parametrize("name", OURS)
def test_magnitudes_scales_and_alphas_are_float32_in_every_file(name: str, tmp_path: Path) -> None:
    trained = case("sd1", "dora")
    path = written(name, trained.state, tmp_path, trained.base, "bf16")
    files = sorted(path.rglob("*.safetensors")) if path.is_dir() else [path]
    factors = ("lora_A.weight", "lora_B.weight", "down.weight", "up.weight", ".diff")
    for file in files:
        for key, tensor in load_file(file).items():
            assert tensor.dtype == (torch.bfloat16 if key.endswith(factors) else torch.float32), key


@pytest.mark.parametrize("name", OURS)
def test_the_same_adapter_is_the_same_bytes(name: str, tmp_path: Path) -> None:
    trained = case("sd2", "dora", "attn")
    paths = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        paths.append(written(name, trained.state, folder, trained.base))
    files = [sorted(p for p in ([path] if path.is_file() else path.rglob("*")) if p.is_file()) for path in paths]
    assert [p.read_bytes() for p in files[0]] == [p.read_bytes() for p in files[1]]


@pytest.mark.parametrize("name", ["comfyui", "dual", "diff"])
def test_a_format_that_needs_the_base_refuses_another(name: str, tmp_path: Path) -> None:
    trained = case("sd1", "dora", "attn")

    class Other:
        name, family = "other", "sd1"
        weights = {name: weight * 1.01 for name, weight in trained.bases.items()}

    with pytest.raises(AdapterError, match=r"needs the very base .* \(small-sd1\); the weights of other differ"):
        written(name, trained.state, tmp_path, Other())
    Other.weights = {name: weight for name, weight in trained.bases.items() if "up_blocks" not in name}
    with pytest.raises(AdapterError, match="other lacks 16 of its"):
        written(name, trained.state, tmp_path, Other())
    Other.weights = {name: weight[:, :-1] for name, weight in trained.bases.items()}
    with pytest.raises(AdapterError, match=r"is \[.*\] in other and \d+x\d+ in the adapter"):
        written(name, trained.state, tmp_path, Other())
    with pytest.raises(ConfigError, match="Give .*--pretrained_model_name_or_path"):
        written(name, trained.state, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("factor", [1e6, 1e-9], ids=["too large", "rounded away"])
@pytest.mark.parametrize("name", OURS)
def test_what_fp16_cannot_hold_is_refused(name: str, factor: float, tmp_path: Path) -> None:
    trained = case("sd1", "lora", "attn")
    layer = next(iter(trained.state.layers.values()))
    odd = replace(layer, B=layer.B * factor)
    state = AdapterState("lora", trained.state.layers | {"unet.conv_in": odd})
    with pytest.raises(FormatError, match="which fp16 cannot hold: .* Export with --precision bf16 or fp32"):
        written(name, state, tmp_path, trained.base, "fp16")
    assert list(tmp_path.iterdir()) == []
    assert written(name, state, tmp_path, trained.base, "bf16").exists()


@pytest.mark.parametrize("name", OURS)
def test_an_untrained_adapter_is_written_in_every_precision(name: str, tmp_path: Path) -> None:
    """Its ``B`` is zero, which every precision holds."""
    trained = case("sd1", "dora", "attn")
    zeros = {n: replace(layer, B=torch.zeros_like(layer.B)) for n, layer in trained.state.layers.items()}
    for precision in ("fp32", "fp16", "bf16"):
        path = written(name, replace(trained.state, layers=zeros), tmp_path, trained.base, precision)
        assert load_adapter(path).layers.keys() == zeros.keys()


@pytest.mark.parametrize("name", OURS)
def test_exactly_one_format_recognises_a_file(name: str, tmp_path: Path) -> None:
    trained = case("sd1", "dora", "attn")
    path = written(name, trained.state, tmp_path, trained.base)
    files = [f for f in ([path] if path.is_file() else path.rglob("*.safetensors"))]
    keys = [key if path.is_file() else f"{file.parent.name}.{key}" for file in files for key in load_file(file)]
    assert [known for known in FORMATS if FORMATS.load(known).recognises(keys)] == [name]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["diffusers", "peft", "kohya"])
def test_full_size_layer_lists_are_carried_whole(name: str, family: str, tmp_path: Path) -> None:
    """Every Linear and Conv2d of SD 1.5, SD 2.1 and SDXL, told apart by its numbers."""
    state = full_size_state(family, "dora")
    assert len(state.layers) == COUNTS[family]
    back = load_adapter(written(name, state, tmp_path))
    assert back.layers.keys() == state.layers.keys()
    for layer_name, layer in state.layers.items():
        again = back.layers[layer_name]
        assert again.weight_shape == layer.weight_shape
        assert torch.equal(again.scale * again.B @ again.A[:, :2], layer.scale * layer.B @ layer.A[:, :2]), layer_name
        assert torch.equal(again.magnitude, layer.magnitude)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["comfyui", "dual", "diff"])
def test_full_size_names_of_the_formats_that_need_a_base(name: str, family: str, tmp_path: Path) -> None:
    """As LoRAs, whose files have the same names and need no weights; differences are large, so only some."""
    state = full_size_state(
        family, "lora", "" if name != "diff" else "mid_block.attentions.0.transformer_blocks.0.attn2"
    )
    back = load_adapter(written(name, state, tmp_path))
    assert back.layers.keys() == state.layers.keys()
    for layer_name, layer in state.layers.items():
        again = back.layers[layer_name]
        assert torch.equal(again.scale * again.B[:2] @ again.A[:, :2], layer.scale * layer.B[:2] @ layer.A[:, :2])


@pytest.mark.parametrize("family", FAMILIES)
def test_no_key_of_a_file_is_left_over(family: str, tmp_path: Path) -> None:
    trained = case(family, "dora")
    layout = Layout.of(trained.base.weights)
    for name in ("kohya", "comfyui", "dual", "diff", "diffusers"):
        keys = list(load_file(written(name, trained.state, tmp_path, trained.base)))
        found = {canonical(part_of(key)[0], layout) for key in keys if key != "dora_diffusion.magnitude"}
        assert found == set(trained.state.layers), name


def test_a_small_sdxl_needs_its_base_to_number_its_blocks(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="its blocks cannot be numbered without its base"):
        written("kohya", case("sdxl", "dora", "attn").state, tmp_path)
    with pytest.raises(ConfigError, match="do not tell whether it is for Stable Diffusion 1.x, 2.x or XL"):
        written("kohya", case("sd1", "dora", "attn").state, tmp_path)


def test_a_full_size_adapter_needs_no_base_for_kohyas_names(tmp_path: Path) -> None:
    for family in FAMILIES:
        keys = load_file(written("kohya", full_size_state(family, "lora", "attn2"), tmp_path))
        assert all(key.startswith("lora_unet_") for key in keys)
        assert any("input_blocks_4_1" in key for key in keys) == (family == "sdxl")
    assert len(full_size_shapes("sdxl")) == COUNTS["sdxl"]


def test_reading_leaves_no_view_into_the_file(tmp_path: Path) -> None:
    trained = case("sd1", "dora", "attn")
    for name in OURS:
        for part in all_parts(load_adapter(written(name, trained.state, tmp_path, trained.base))):
            assert part.dtype == torch.float32 and part.is_contiguous()
