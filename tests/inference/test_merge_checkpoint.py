"""``merge --single_file``: the file that other programs load holds the same weights as the merged pipeline."""

import json
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from bases import perturb
from original_layout import original_layout
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_models import FAMILIES, FOLDERS, small_configurations, small_pipeline, weights_of

from dora_diffusion.adapters import AdapterState, LayerState, inject
from dora_diffusion.config import AdapterConfig, MergeConfig
from dora_diffusion.errors import AdapterError, ConfigError
from dora_diffusion.formats import WEIGHTS_NAME
from dora_diffusion.formats.base_files import open_base
from dora_diffusion.formats.diffusers_format import DIFFUSERS
from dora_diffusion.inference import merge
from dora_diffusion.inference.merge_checkpoint import write_merged_checkpoint
from dora_diffusion.models import load_base
from dora_diffusion.registry import FAMILIES as REGISTERED


@pytest.fixture(scope="module")
def small() -> dict[str, Any]:
    return {family: small_pipeline(family, clip_words=True) for family in FAMILIES}


@pytest.fixture(scope="module")
def configurations(small: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_configurations(small, tmp_path_factory.mktemp("configs") / "configs")


@pytest.fixture(scope="module")
def folders(small: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("small")
    for family, pipe in small.items():
        pipe.save_pretrained(root / family)
    return {family: root / family for family in FAMILIES}


def trained(folder: Path, kind: str = "dora") -> AdapterState:
    """An adapter on every linear layer and convolution, and in every text encoder."""
    base = load_base(str(folder))
    config = AdapterConfig(
        kind=kind, rank=2, alpha=3, targets="full", train_text_encoder=True, text_encoder_targets="attn-mlp"
    )
    metadata = {"trigger": "sks", **base.schedule_facts()}
    return perturb(inject(base, config), 0.1).state(str(folder), metadata)


def header_of(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata())


@pytest.mark.parametrize("family", FAMILIES)
def test_diffusers_and_we_read_the_merged_pipelines_weights(
    family: str, folders: dict[str, Path], configurations: Path, tmp_path: Path
) -> None:
    DIFFUSERS.write(trained(folders[family]), tmp_path / "run" / WEIGHTS_NAME)
    plain = merge(MergeConfig(adapter=tmp_path / "run", output_dir=tmp_path / "folder"))
    file = merge(MergeConfig(adapter=tmp_path / "run", output_dir=tmp_path / "one", single_file=True))
    assert file == tmp_path / "one.safetensors"
    expected = weights_of(load_base(str(plain)).pipe)
    base_weights = weights_of(load_base(str(folders[family])).pipe)
    assert sum(not torch.equal(expected[name], base_weights[name]) for name in expected) > 50

    config = configurations / FOLDERS[family][0]
    pipeline = getattr(diffusers, REGISTERED.load(family).pipeline)
    theirs = pipeline.from_single_file(str(file), config=str(config), local_files_only=True, safety_checker=None)
    ours = load_base(str(file), configurations=configurations)
    for found in (weights_of(theirs), weights_of(ours.pipe)):
        assert found.keys() == expected.keys()
        assert [name for name in expected if not torch.equal(found[name], expected[name])] == []
    assert ours.prediction_type == load_base(str(folders[family])).prediction_type
    header = header_of(file)
    assert json.loads(header["dora_diffusion.merged"]) == {
        **{"merged": True, "adapter": "run", "base": str(folders[family]), "strength": 1.0, "kind": "dora"}
    }
    assert header["modelspec.prediction_type"] == {"sd2": "v"}.get(family, "epsilon")
    assert header["modelspec.trigger_phrase"] == "sks"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_checkpoint_is_merged_into_as_its_folder_is(
    family: str, small: dict[str, Any], folders: dict[str, Path], configurations: Path, tmp_path: Path
) -> None:
    """Base: one file, with what published ones hold besides."""
    besides = {"model_ema.decay": torch.zeros(()), "v_pred": torch.zeros(0), "numbers": torch.arange(3)}
    source = tmp_path / "base.safetensors"
    save_file(original_layout(small[family]) | besides, source)
    state = trained(folders[family], "lora")
    settings: dict[str, Any] = {"strength": 0.7, "dtype": torch.float32, "stamp": "{}"}
    from_file, from_folder = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    write_merged_checkpoint(open_base(str(source), configurations), state, from_file, **settings)
    write_merged_checkpoint(open_base(str(folders[family])), state, from_folder, **settings)
    found, expected = load_file(from_file), load_file(from_folder)
    assert found.keys() == expected.keys() | {"v_pred"}
    assert [key for key in expected if not torch.equal(found[key], expected[key])] == []


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_cast_once_from_float32(precision: str, folders: dict[str, Path], tmp_path: Path) -> None:
    DIFFUSERS.write(trained(folders["sd1"]), tmp_path / "run" / WEIGHTS_NAME)
    asked = {"adapter": tmp_path / "run", "single_file": True}
    exact = load_file(merge(MergeConfig(**asked, output_dir=tmp_path / "exact.safetensors")))
    short = load_file(merge(MergeConfig(**asked, output_dir=tmp_path / "short", precision=precision)))
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    assert all(torch.equal(short[key], tensor.to(dtype)) for key, tensor in exact.items())


def test_strength_zero_is_the_base(folders: dict[str, Path], small: dict[str, Any], tmp_path: Path) -> None:
    DIFFUSERS.write(trained(folders["sdxl"]), tmp_path / "run" / WEIGHTS_NAME)
    file = merge(MergeConfig(adapter=tmp_path / "run", output_dir=tmp_path / "x", single_file=True, strength=0))
    found, expected = load_file(file), original_layout(small["sdxl"])
    assert found.keys() == expected.keys() and all(torch.equal(found[key], t) for key, t in expected.items())


def test_a_model_of_sdxl_that_predicts_v_is_marked(folders: dict[str, Path], tmp_path: Path) -> None:
    state = trained(folders["sdxl"])
    facts = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": "true"}
    marked = AdapterState("dora", state.layers, state.base_name, {}, facts)
    path = tmp_path / "x.safetensors"
    write_merged_checkpoint(
        open_base(str(folders["sdxl"])), marked, path, strength=1.0, dtype=torch.float32, stamp="{}"
    )
    found = load_file(path)
    assert found["v_pred"].numel() == found["ztsnr"].numel() == 0


def test_an_adapter_of_another_model_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    state = trained(folders["sd1"])
    settings: dict[str, Any] = {"strength": 1.0, "dtype": torch.float32, "stamp": "{}"}
    with pytest.raises(AdapterError, match="this base has no text_encoder_2"):
        sdxl = trained(folders["sdxl"])
        only = {name: layer for name, layer in sdxl.layers.items() if name.startswith("text_encoder_2")}
        other = AdapterState("dora", only, "elsewhere")
        write_merged_checkpoint(open_base("toybox"), other, tmp_path / "x.safetensors", **settings)
    name, layer = next(iter(state.layers.items()))
    cut = AdapterState("dora", {name: LayerState(layer.A[:, 1:], layer.B, 1.0, layer.magnitude, (8, 3))}, "elsewhere")
    with pytest.raises(AdapterError, match="does not fit this base: .* which was made for elsewhere"):
        write_merged_checkpoint(open_base(str(folders["sd1"])), cut, tmp_path / "x.safetensors", **settings)
    assert list(tmp_path.iterdir()) == []


def test_a_foreign_file_is_not_overwritten_and_ours_is(
    folders: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    DIFFUSERS.write(trained(folders["sd1"]), tmp_path / "run" / WEIGHTS_NAME)
    asked = MergeConfig(adapter=tmp_path / "run", output_dir=tmp_path / "x.safetensors", single_file=True)
    (tmp_path / "x.safetensors").write_bytes(b"somebody's")
    with pytest.raises(ConfigError, match="is no merged checkpoint of ours"):
        merge(asked)
    (tmp_path / "x.safetensors").unlink()
    first = merge(asked).read_bytes()
    assert merge(asked).read_bytes() == first
    assert "programs that load one-file checkpoints know only those" in caplog.text
