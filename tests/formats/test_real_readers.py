"""The readers that are installed load our files and make our merged weights of them: diffusers and PEFT."""

import copy
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small_adapters import Case, case, small_base
from small_models import FAMILIES
from test_round_trip import written
from torch import Tensor

from dora_diffusion.formats.base_weights import LoadedBase
from dora_diffusion.models import BaseModel
from dora_diffusion.registry import FAMILIES as REGISTERED

PRECISIONS = {"fp32": (1e-6, 1e-4), "bf16": (1.0, 2**-7)}


def fresh_pipeline(family: str) -> Any:
    """A copy of the small model that an adapter may be put into."""
    return copy.deepcopy(small_base(family).pipe)


def weights_of(pipe: Any, family: str, trained: Case) -> dict[str, Tensor]:
    weights = LoadedBase(BaseModel("theirs", REGISTERED.load(family), pipe)).weights
    return {name: weights[name] for name in trained.state.layers}


def components(pipe: Any) -> list[str]:
    return [name for name in ("unet", "text_encoder", "text_encoder_2") if getattr(pipe, name, None) is not None]


def merged_by_diffusers(path: Path, family: str, trained: Case) -> dict[str, Tensor]:
    """What ``load_lora_weights`` and ``fuse_lora`` make of a file."""
    pipe = fresh_pipeline(family)
    pipe.load_lora_weights(path.parent, weight_name=path.name)
    pipe.fuse_lora(components=components(pipe))
    pipe.unload_lora_weights()
    return weights_of(pipe, family, trained)


def merged_by_peft(folder: Path, family: str, trained: Case) -> dict[str, Tensor]:
    """What ``PeftModel`` makes of a folder."""
    from peft import PeftModel

    pipe = fresh_pipeline(family)
    for part in components(pipe):
        setattr(pipe, part, PeftModel.from_pretrained(getattr(pipe, part), folder / part).merge_and_unload())
    return weights_of(pipe, family, trained)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ["diffusers", "dual"])
@pytest.mark.parametrize("kind", ["dora", "lora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_diffusers(family: str, kind: str, name: str, precision: str, tmp_path: Path) -> None:
    trained = case(family, kind)
    path = written(name, trained.state, tmp_path, trained.base, precision)
    of_weight, of_change = trained.weight_errors(merged_by_diffusers(path, family, trained))
    assert of_weight <= PRECISIONS[precision][0] and of_change <= PRECISIONS[precision][1]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", ["dora", "lora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_peft(family: str, kind: str, precision: str, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    trained = case(family, kind)
    folder = written("peft", trained.state, tmp_path, trained.base, precision)
    of_weight, of_change = trained.weight_errors(merged_by_peft(folder, family, trained))
    assert of_weight <= PRECISIONS[precision][0] and of_change <= PRECISIONS[precision][1]
    assert not [
        str(w.message) for w in recwarn if "missing" in str(w.message) or "unexpected" in str(w.message).lower()
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_diffusers_reads_kohyas_layout_of_a_lora(family: str, tmp_path: Path) -> None:
    """With two ranks and two alphas. Of a DoRA it drops the scales, which is why there is ``dual``."""
    trained = case(family, "lora", "attn-mlp")
    path = written("kohya", trained.state, tmp_path, trained.base)
    of_weight, of_change = trained.weight_errors(merged_by_diffusers(path, family, trained))
    assert of_weight <= 1e-6 and of_change <= 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_diffusers_takes_every_tensor_of_a_dual_file_but_the_scales(
    family: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained = case(family, "dora")
    path = written("dual", trained.state, tmp_path, trained.base)
    pipe = fresh_pipeline(family)
    with caplog.at_level(logging.WARNING):
        pipe.load_lora_weights(path.parent, weight_name=path.name)
    loaded = [
        value for part in components(pipe) for name, value in getattr(pipe, part).named_parameters() if "lora_" in name
    ]
    kept = {key: tensor for key, tensor in load_file(path).items() if not key.endswith(".dora_scale")}
    assert len(loaded) == len(kept)
    assert sorted(float(v.detach().sum()) for v in loaded) == pytest.approx(
        sorted(float(t.sum()) for t in kept.values())
    )
    assert not [r.message for r in caplog.records if "UNEXPECTED" in r.message or "MISSING" in r.message]


def divided_by_the_base_norm(trained: Case, file: dict[str, Tensor], keys: dict[str, tuple[str, str, str]]) -> Any:
    """ComfyUI's and Forge's arithmetic: ``V * dora_scale / (||W0|| + eps)``, alpha / rank where there is an alpha."""
    weights = {}
    for name, (key, down, up) in keys.items():
        W0, A, B = trained.bases[name], file[f"{key}{down}"].flatten(1), file[f"{key}{up}"].flatten(1)
        scale = file[f"{key}.alpha"] / A.shape[0] if f"{key}.alpha" in file else 1.0
        V = W0 + scale * (B @ A).view_as(W0)
        norm = W0.flatten(1).norm(dim=1).view(-1, *[1] * (W0.ndim - 1)) + torch.finfo(torch.float32).eps
        weights[name] = V * (file[f"{key}.dora_scale"] / norm)
    return weights


@pytest.mark.parametrize("family", FAMILIES)
def test_the_arithmetic_of_comfyui_and_forge(family: str, tmp_path: Path) -> None:
    """Written from their rule; their own code runs in the oracles."""
    from dora_diffusion.formats.names import Layout, kohya

    trained = case(family, "dora")
    layout = Layout.of(trained.base.weights)
    file = load_file(written("comfyui", trained.state, tmp_path, trained.base))
    keys = {
        name: (kohya(name, family, layout), ".lora_down.weight", ".lora_up.weight") for name in trained.state.layers
    }
    of_weight, of_change = trained.weight_errors(divided_by_the_base_norm(trained, file, keys))
    assert of_weight <= 1e-6 and of_change <= 1e-4

    file = load_file(written("dual", trained.state, tmp_path, trained.base))
    keys = {name: dual_keys(name) for name in trained.state.layers}
    of_weight, of_change = trained.weight_errors(divided_by_the_base_norm(trained, file, keys))
    assert of_weight <= 1e-6 and of_change <= 1e-4

    plain = load_file(written("kohya", trained.state, tmp_path, trained.base))
    keys = {
        name: (kohya(name, family, layout), ".lora_down.weight", ".lora_up.weight") for name in trained.state.layers
    }
    assert trained.weight_errors(divided_by_the_base_norm(trained, plain, keys))[1] > 0.01


def dual_keys(name: str) -> tuple[str, str, str]:
    if name.startswith("text_"):
        return name, ".lora_A.weight", ".lora_B.weight"
    head, _, last = name.rpartition(".attn")
    if head:
        number, _, layer = last.partition(".")
        name = f"{head}.attn{number}.processor.{layer.removesuffix('.0')}"
        return name, "_lora.down.weight", "_lora.up.weight"
    return name, ".lora.down.weight", ".lora.up.weight"
