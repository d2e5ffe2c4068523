"""What inspect says of a file: sizes against closed forms, and which programs read it."""

import json
import math
from pathlib import Path

import pytest
import torch
from moved import moved_state
from torch import Tensor

from dora_diffusion.adapters import AdapterState, LayerState, merged_weights
from dora_diffusion.cli import main
from dora_diffusion.config import ExportConfig
from dora_diffusion.errors import AdapterError, ModelError
from dora_diffusion.formats import export, write_safetensors
from dora_diffusion.formats.base_files import open_base
from dora_diffusion.formats.diffusers_format import DIFFUSERS
from dora_diffusion.formats.facts import facts
from dora_diffusion.formats.readers import RIGHT, Axis, Layout, axis_of, layout_of, readers

LAYER = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"


@pytest.fixture(scope="module")
def dora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dora") / "x.safetensors"
    DIFFUSERS.write(moved_state("dora"), path)
    return path


def test_sizes_are_those_of_the_merged_weights(dora: Path) -> None:
    state, weights = moved_state("dora"), open_base("toybox").weights
    report = facts(dora)
    merged = dict(merged_weights(state, dict(weights)))
    squares = [0.0, 0.0]
    for name, layer in report["layers"].items():
        given = state.layers[name]
        change = float((merged[name].double() - weights[name].double()).norm())
        assert layer["change_norm"] == pytest.approx(change, rel=1e-3)
        assert layer["relative_change"] == pytest.approx(change / float(weights[name].norm()), rel=2e-3)
        assert layer["update_norm"] == pytest.approx(float((given.scale * given.B @ given.A).norm()), rel=1e-3)
        assert layer["rank"] == 8 and 1 < layer["effective_rank"] <= 8 and not layer["dead"]
        squares = [squares[0] + change**2, squares[1] + float(weights[name].norm()) ** 2]
    assert report["relative_change"] == pytest.approx(math.sqrt(squares[0] / squares[1]), rel=2e-3)
    assert report["compared_with"] == "toybox" and report["layers_of_another_base"] == []
    assert (report["kind"], report["layout"], report["axis"]) == ("dora", "diffusers", "one norm per output row")
    assert report["trigger"] == "sks" and report["dtypes"] == ["float32"] and report["ranks"] == [8]
    assert report["components"] == {"unet": 56, "text_encoder": 16} and report["metadata"]["step"] == "1"


def test_without_its_base_only_the_update_is_known(tmp_path: Path) -> None:
    for name, base in (("gone", "/no/such/base"), ("hub", "nobody/not-downloaded"), ("none", "")):
        DIFFUSERS.write(AdapterState("dora", moved_state("dora").layers, base), tmp_path / f"{name}.safetensors")
        report = facts(tmp_path / f"{name}.safetensors")
        assert report["compared_with"] is None and report["relative_change"] is None
        assert report["layers"][LAYER]["change_norm"] is None and report["layers"][LAYER]["update_norm"] > 0
    with pytest.raises(ModelError):
        facts(tmp_path / "none.safetensors", "/no/such/base")


def test_a_loras_change_is_its_update(tmp_path: Path) -> None:
    DIFFUSERS.write(AdapterState("lora", moved_state("lora").layers), tmp_path / "x.safetensors")
    layer = facts(tmp_path / "x.safetensors")["layers"][LAYER]
    assert layer["change_norm"] == layer["update_norm"] and layer["relative_change"] is None
    layer = facts(tmp_path / "x.safetensors", "toybox")["layers"][LAYER]
    assert layer["relative_change"] > 0


def test_dead_layers_and_effective_ranks(tmp_path: Path) -> None:
    state, weights = moved_state("dora"), open_base("toybox").weights
    names = list(state.layers)[:3]
    norms = {name: torch.linalg.vector_norm(weights[name].flatten(1), dim=1) for name in names}
    shape = {name: tuple(weights[name].shape) for name in names}
    none = {name: torch.zeros(len(norms[name]), 2) for name in names}
    A = {name: torch.eye(2, weights[name][0].numel()) for name in names}
    two = torch.zeros(shape[names[2]][0], 2)
    two[0, 0] = two[1, 1] = 0.5
    layers = {
        names[0]: LayerState(A[names[0]], none[names[0]], 1.0, norms[names[0]], shape[names[0]]),
        names[1]: LayerState(A[names[1]], none[names[1]], 1.0, 1.5 * norms[names[1]], shape[names[1]]),
        names[2]: LayerState(A[names[2]], two, 2.0, norms[names[2]], shape[names[2]]),
    }
    DIFFUSERS.write(AdapterState("dora", layers, "toybox"), tmp_path / "x.safetensors")
    report = facts(tmp_path / "x.safetensors")
    assert report["untrained_layers"] == [names[0]], "the second one's magnitudes moved"
    assert report["layers"][names[1]]["relative_change"] == pytest.approx(0.5, rel=1e-3)
    assert [report["layers"][name]["effective_rank"] for name in names] == [0, 0, 2]
    assert report["layers"][names[2]]["update_norm"] == pytest.approx(math.sqrt(2), rel=1e-5)


def test_another_base_is_told(dora: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from dora_diffusion.models import load_base

    base = load_base("toybox")
    with torch.no_grad():
        base.unet.get_submodule(LAYER.removeprefix("unet.")).weight.mul_(1.1)
    base.pipe.save_pretrained(tmp_path / "other")
    assert main(["inspect", str(dora), "--pretrained_model_name_or_path", str(tmp_path / "other")]) == 0
    assert f"other is another base in 1 layers, first {LAYER}" in capsys.readouterr().out
    small = AdapterState("lora", {LAYER: LayerState(torch.ones(1, 3), torch.ones(5, 1), 1.0, None, (5, 3))}, "toybox")
    DIFFUSERS.write(small, tmp_path / "x.safetensors")
    assert facts(tmp_path / "x.safetensors")["compared_with"] is None, "toybox, as the file calls it, is another"
    with pytest.raises(AdapterError, match="does not fit this base"):
        facts(tmp_path / "x.safetensors", "toybox")


def test_the_document_is_json_and_the_table_has_every_column(dora: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(dora), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(facts(dora)))
    assert main(["inspect", str(dora), "--layers"]) == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith(LAYER)]
    layer = facts(dora)["layers"][LAYER]
    assert row.split()[1:] == [
        *("8", "8", f"{layer['effective_rank']:.1f}", f"{layer['update_norm']:.4f}"),
        *(f"{layer['relative_change']:.5f}", f"{layer['mean_magnitude']:.4f}"),
    ]


def kohya(scale: Tensor | None, out: int = 4, columns: int = 6) -> dict[str, Tensor]:
    name = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
    factors = {f"{name}.lora_down.weight": torch.ones(2, columns), f"{name}.lora_up.weight": torch.ones(out, 2)}
    return factors if scale is None else {**factors, f"{name}.dora_scale": scale}


def dotted(magnitude: str | None, component: str = "unet", path: str = "a.attn1.to_q") -> dict[str, Tensor]:
    name = f"{component}.{path}"
    factors = {f"{name}.lora_A.weight": torch.ones(2, 6), f"{name}.lora_B.weight": torch.ones(4, 2)}
    return factors if magnitude is None else {**factors, f"{name}{magnitude}": torch.ones(4)}


ROWS, COLUMNS = torch.ones(4, 1), torch.ones(1, 6)
OLD = "unet.a.attn1.processor.to_q"
DUAL = {
    f"{OLD}_lora.down.weight": torch.ones(2, 6),
    f"{OLD}_lora.up.weight": torch.ones(4, 2),
    f"{OLD}.lora_magnitude_vector.weight": torch.ones(4),
    f"{OLD}.dora_scale": ROWS,
}
COMPENSATED = {"dora_diffusion.dora_norm": "base"}


@pytest.mark.parametrize(
    ("tensors", "header", "right"),
    [
        (kohya(None), {}, {"diffusers", "ComfyUI", "Forge", "A1111", "LyCORIS, sd-scripts"}),
        (kohya(ROWS), {}, {"LyCORIS, sd-scripts"}),
        (kohya(ROWS), COMPENSATED, {"ComfyUI", "Forge"}),
        (kohya(COLUMNS), {}, {"ComfyUI", "Forge", "A1111"}),
        (kohya(torch.ones(4)), {}, set()),
        (dotted(None), {}, {"diffusers"}),
        (dotted(".lora_magnitude_vector.weight"), {}, {"diffusers"}),
        (dotted(".lora_magnitude_vector"), {}, {"diffusers"}),
        (dotted(".lora_magnitude_vector", "text_encoder"), {}, set()),
        (dotted(None, path="mid_block.proj_in"), {}, {"diffusers", "ComfyUI", "Forge"}),
        (dotted(".lora_magnitude_vector.weight", path="mid_block.proj_in"), {}, {"diffusers"}),
        (DUAL, {}, {"diffusers", "ComfyUI", "Forge"}),
        ({"lora_unet_x.diff": torch.ones(4, 6)}, {}, {"ComfyUI", "Forge", "A1111", "LyCORIS, sd-scripts"}),
    ],
)
def test_who_reads_a_file_right(tensors: dict[str, Tensor], header: dict[str, str], right: set[str]) -> None:
    """The verified table of reference/formats.md, sections 0, 2 and 6."""
    found = readers(tensors, header)
    assert {reader for reader, verdict in found.items() if verdict == RIGHT} == right
    assert len(found) == 5 and all("\n" not in verdict for verdict in found.values())


def test_layout_and_axis_by_names_and_shapes() -> None:
    assert axis_of(kohya(ROWS)) is axis_of(dotted(".lora_magnitude_vector")) is Axis.ROWS
    assert (
        axis_of(kohya(torch.ones(4, 1, 1, 1))) is Axis.ROWS and axis_of(kohya(torch.ones(1, 6, 1, 1))) is Axis.COLUMNS
    )
    assert axis_of(kohya(None)) is None and axis_of(kohya(torch.ones(4))) is Axis.UNTOLD
    assert axis_of(kohya(torch.ones(4, 1), 4, 4)) is Axis.ROWS, "square weights too"
    assert [layout_of(x) for x in (kohya(None), dotted(None), DUAL, {"x.diff": ROWS}, {"y": ROWS})] == [
        *(Layout.KOHYA, Layout.DOTTED, Layout.OLD_DOTTED, Layout.DIFFERENCE, Layout.UNKNOWN)
    ]
    assert readers({"y": ROWS}, {}) == {}


def test_the_file_of_a_run_is_right_in_diffusers_as_said(dora: Path) -> None:
    """What ``tests/inference/test_same_picture.py`` proves."""
    assert facts(dora)["readers"]["diffusers"] == RIGHT


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("diffusers", {"diffusers"}),
        ("kohya", {"LyCORIS, sd-scripts"}),
        ("comfyui", {"ComfyUI", "Forge"}),
        ("dual", {"diffusers", "ComfyUI"}),
        ("diff", {"ComfyUI", "Forge", "A1111", "LyCORIS, sd-scripts"}),
    ],
)
def test_every_export_is_right_where_it_was_made_for(name: str, right: set[str], dora: Path, tmp_path: Path) -> None:
    export(ExportConfig(adapter=dora, format=name, output=tmp_path / "x.safetensors"))
    report = facts(tmp_path / "x.safetensors")
    assert {reader for reader, verdict in report["readers"].items() if verdict == RIGHT} == right
    assert report["relative_change"] == pytest.approx(facts(dora)["relative_change"], rel=1e-3)


def test_pefts_folder_can_be_inspected(dora: Path, tmp_path: Path) -> None:
    export(ExportConfig(adapter=dora, format="peft", output=tmp_path / "folder"))
    report = facts(tmp_path / "folder")
    assert report["kind"] == "dora" and report["relative_change"] == facts(dora)["relative_change"]


def test_a_file_of_the_old_spelling_without_norms(tmp_path: Path) -> None:
    tensors = {key: t for key, t in DUAL.items() if "lora." in key}
    write_safetensors(tmp_path / "x.safetensors", tensors, {})
    assert readers(tensors, {})["ComfyUI"] == RIGHT and readers(tensors, {})["diffusers"] == RIGHT
