"""What inspect says of a file: sizes against closed forms, and which programs read it."""

import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from moved import moved_state
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from dora_diffusion.adapters import AdapterState, LayerState, merged_weights
from dora_diffusion.cli import main
from dora_diffusion.config import ConvertConfig, ExportConfig
from dora_diffusion.errors import AdapterError, ModelError
from dora_diffusion.formats import export, load_adapter
from dora_diffusion.formats.base_files import open_base
from dora_diffusion.formats.base_weights import BaseByName
from dora_diffusion.formats.diffusers_format import DIFFUSERS
from dora_diffusion.formats.facts import facts
from dora_diffusion.formats.layouts import Axis, axis_of
from dora_diffusion.formats.tools import convert_file
from dora_diffusion.formats.verify import RIGHT, open_file, verify_against
from dora_diffusion.registry import FORMATS, READERS

Spell = Callable[[str], str]
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


# ------------------------------------------------------------------------------------ who reads a file right

RIGHT_IN = {
    "diffusers": {"diffusers"},
    "kohya": {"lycoris"},
    "comfyui": {"comfyui", "forge"},
    "dual": {"diffusers", "comfyui"},
    "diff": {"comfyui", "forge", "lycoris"},  # and A1111, but not toybox's: it counts two resnets a level
}


def right_in(report: dict[str, Any]) -> set[str]:
    return {reader for reader, verdict in report["readers"].items() if verdict == RIGHT}


def exported(dora: Path, name: str, folder: Path) -> Path:
    return export(ExportConfig(adapter=dora, format=name, output=folder / f"{name}.safetensors"))


def without_its_base(path: Path) -> Path:
    """The same file, saying that it was trained on a base that is not here."""
    with safe_open(path, "pt") as file:
        header = file.metadata()
    save_file(load_file(path), path, {**header, "dora_diffusion.base_name": "/no/such/base"})
    return path


@pytest.mark.parametrize("name", list(RIGHT_IN))
def test_every_export_is_right_where_it_was_made_for(name: str, dora: Path, tmp_path: Path) -> None:
    """As ``verify`` answers: there is one set of rules."""
    path = exported(dora, name, tmp_path)
    report = facts(path)
    proved = verify_against(open_file(path), load_adapter(dora), BaseByName("toybox"))
    assert right_in(report) == {one.reader for one in proved if one.is_right} == RIGHT_IN[name]
    assert set(report["readers"]) == set(READERS) - {"peft"} and report["readers_judged_on"] == "toybox"
    assert all("\n" not in verdict for verdict in report["readers"].values())
    assert report["relative_change"] == pytest.approx(facts(dora)["relative_change"], rel=1e-3)


@pytest.mark.parametrize("name", list(RIGHT_IN))
def test_without_its_base_a_reader_is_judged_as_far_as_can_be(name: str, dora: Path, tmp_path: Path) -> None:
    """A file that was made for one base is right on no other; its magnitudes, which diffusers reads, are on any."""
    report = facts(without_its_base(exported(dora, name, tmp_path)))
    made_for_base = {"comfyui": {"comfyui", "forge"}, "dual": {"comfyui"}}.get(name, set())
    published = {"a1111"} if name == "diff" else set()  # the size that is taken for granted
    assert right_in(report) == RIGHT_IN[name] - made_for_base | published
    for reader in made_for_base:
        assert report["readers"][reader] == "cannot be told without its base, for which the file was made"
    assert report["readers_judged_on"] == "weights in place of its base"
    assert not any("%" in verdict for verdict in report["readers"].values()), "figures on other weights mean nothing"


def test_what_is_wrong_and_what_to_export_instead(dora: Path, tmp_path: Path) -> None:
    verdicts = facts(exported(dora, "kohya", tmp_path))["readers"]
    assert re.fullmatch(
        r"wrong in 72 of 72 layers, by up to 9\.9 % of a layer's change "
        r"\(72 magnitudes are divided by the norms of the base's rows\); export --format comfyui",
        verdicts["comfyui"],
    )
    assert "72 DoRA scales are filtered out" in verdicts["diffusers"]
    assert "56 magnitudes are divided by the norms of input columns); --format lora would not be" in verdicts["a1111"]
    assert "it counts blocks as the published models do" in verdicts["a1111"]
    verdicts = facts(exported(dora, "dual", tmp_path))["readers"]
    assert verdicts["forge"].startswith("loads nothing: 72 keys match no layer")
    assert verdicts["lycoris"] == "reads nothing of it: its names are not known there; export --format kohya"


def test_a_lora_is_advised_where_it_would_be_right(dora: Path, tmp_path: Path) -> None:
    """A1111 finds no layer of a DoRA in diffusers' names; a LoRA of toybox it would find in part, of SD 1.x whole."""
    lora = ConvertConfig(adapter=dora, format="lora", output=tmp_path / "lora.safetensors")
    convert_file(lora)
    (told,) = verify_against(open_file(lora.output), load_adapter(lora.output), BaseByName("toybox"), ["a1111"])
    lost = len([layer for layer in told.layers if layer.expected and not layer.within])
    verdicts = facts(dora)["readers"]
    assert lost and verdicts["a1111"].endswith(
        f"; --format lora would not be right there either: {lost} of 72 layers would not be found"
    )
    assert verdicts["sd_scripts"].endswith("; export --format lora")
    assert facts(without_its_base(Path(shutil.copy(dora, tmp_path / "copy.safetensors"))))["readers"]["a1111"].endswith(
        "; export --format lora"
    )


def test_a_plain_lora_is_not_told_to_become_one(tmp_path: Path) -> None:
    FORMATS.load("lora").write(moved_state("lora"), tmp_path / "x.safetensors", BaseByName("toybox"))
    verdicts = facts(tmp_path / "x.safetensors", "toybox")["readers"]
    assert verdicts["a1111"].startswith("wrong in") and "export" not in verdicts["a1111"]


def test_a_lora_of_another_tool_is_right_everywhere_without_a_base(tmp_path: Path) -> None:
    FORMATS.load("kohya").write(moved_state("lora"), tmp_path / "x.safetensors", BaseByName("toybox"))
    save_file(load_file(tmp_path / "x.safetensors"), tmp_path / "x.safetensors")
    assert right_in(facts(tmp_path / "x.safetensors")) == set(READERS) - {"peft"}


def test_norms_along_columns_are_right_where_they_are_meant(dora: Path, tmp_path: Path) -> None:
    name = f"lora_{LAYER.replace('.', '_')}"
    columns = moved_state("dora").layers[LAYER].A.shape[1]
    tensors = {key: value for key, value in load_file(exported(dora, "kohya", tmp_path)).items() if name in key}
    tensors[f"{name}.dora_scale"] = torch.full((1, columns), 2.0)
    save_file(tensors, tmp_path / "x.safetensors")
    report = facts(tmp_path / "x.safetensors", "toybox")
    assert report["axis"] == "one norm per input column" and "a1111" in right_in(report)
    assert "lycoris" not in right_in(report)


def test_without_a_base_the_page_says_on_what_it_judged(dora: Path, tmp_path: Path, capsys) -> None:
    path = exported(dora, "kohya", tmp_path)
    assert main(["inspect", str(path)]) == 0
    assert "judged on" not in capsys.readouterr().out
    assert main(["inspect", str(without_its_base(path))]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.strip() == "judged on weights in place of its base: give it with --pretrained_model_name_or_path"


# ------------------------------------------------------------------------------------ layouts


def respelled(dora: Path, spell: Spell) -> dict[str, Tensor]:
    return {spell(key): tensor for key, tensor in load_file(dora).items() if "magnitude" not in key}


def with_factors(down: str, up: str) -> Spell:
    return lambda key: key.replace("lora_A", down).replace("lora_B", up)


def of_processors(key: str) -> str:
    if not key.startswith("unet"):
        return key.replace("lora_A", "lora_linear_layer.down").replace("lora_B", "lora_linear_layer.up")
    key = key.replace(".to_", ".processor.to_").replace("to_out.0", "to_out")
    return key.replace(".lora_A", "_lora.down").replace(".lora_B", "_lora.up")


@pytest.mark.parametrize(
    ("spell", "told"),
    [
        (str, "diffusers"),
        (of_processors, "old diffusers, with attention processors (.processor.to_q_lora.down)"),
        (
            lambda key: key.replace("lora_A", "lora.down").replace("lora_B", "lora.up"),
            "old diffusers (.to_q.lora.down)",
        ),
        (
            lambda key: key.replace("lora_A", "lora_down").replace("lora_B", "lora_up"),
            "kohya's parts under dotted names (OneTrainer)",
        ),
    ],
)
def test_layouts_of_diffusers_are_told_apart(
    spell: Callable[[str], str], told: str, dora: Path, tmp_path: Path
) -> None:
    save_file(respelled(dora, spell), tmp_path / "x.safetensors")
    report = facts(tmp_path / "x.safetensors")
    assert report["layout"] == told and report["kind"] == "lora" and report["components"]["unet"] == 56


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("kohya", "kohya"),
        ("comfyui", "kohya, with norms for ComfyUI and Forge"),
        ("dual", "dual: old diffusers, with norms for diffusers and for ComfyUI"),
        ("diff", "full differences"),
    ],
)
def test_layouts_of_exports(name: str, told: str, dora: Path, tmp_path: Path) -> None:
    assert facts(exported(dora, name, tmp_path))["layout"] == told


def test_axes_by_shapes() -> None:
    def scale(*shape: int) -> dict[str, Tensor]:
        return {"lora_unet_x.dora_scale": torch.ones(shape)}

    assert axis_of(scale(4, 1)) is axis_of(scale(4, 1, 1, 1)) is axis_of({"x.magnitude": torch.ones(4)}) is Axis.ROWS
    assert axis_of({"unet.x.lora_magnitude_vector": torch.ones(4)}) is Axis.ROWS
    assert axis_of(scale(1, 6)) is axis_of(scale(1, 6, 1, 1)) is Axis.COLUMNS
    assert axis_of({"x.lora_down.weight": torch.ones(4, 1)}) is None


def test_pefts_folder_can_be_inspected(dora: Path, tmp_path: Path) -> None:
    export(ExportConfig(adapter=dora, format="peft", output=tmp_path / "folder"))
    report = facts(tmp_path / "folder")
    assert report["kind"] == "dora" and report["relative_change"] == facts(dora)["relative_change"]
    assert report["layout"] == "PEFT's folders, one a component" and report["readers"] == {"peft": RIGHT}
    (tmp_path / "folder" / "unet").rename(tmp_path / "mine")
    alone = facts(tmp_path / "mine")
    assert alone["components"] == {"unet": 56} and alone["readers"] == {"peft": RIGHT}, "by what it holds"
