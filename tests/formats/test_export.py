"""``export(config)``: the settings, and what stands in the headers of its files."""

import hashlib
import json
import logging
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from moved import moved_state
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dora_diffusion.adapters import AdapterState, merged_weights
from dora_diffusion.config import ConvertConfig, ExportConfig, ResizeConfig
from dora_diffusion.errors import AdapterError, ConfigError, FormatError, ModelError
from dora_diffusion.formats import WEIGHTS_NAME, export, load_adapter
from dora_diffusion.formats.base_weights import BaseByName
from dora_diffusion.formats.diffusers_format import DIFFUSERS
from dora_diffusion.formats.header import modelspec_header, network_header
from dora_diffusion.formats.rounding import BOUNDS
from dora_diffusion.formats.tools import convert_file, resize_file
from dora_diffusion.models import load_base, resolve
from dora_diffusion.registry import FORMATS

FILES = ("kohya", "comfyui", "dual", "diff")
RUN_SETTINGS = """
model: {pretrained_model_name_or_path: /home/me/models/sd}
data: {instance_data_dir: /home/me/photos}
adapter: {kind: dora, rank: 8}
optim: {learning_rate: 0.001}
"""


@pytest.fixture(scope="module")
def state() -> AdapterState:
    return moved_state("dora")


@pytest.fixture(scope="module")
def run(state: AdapterState, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    DIFFUSERS.write(state, folder / WEIGHTS_NAME)
    (folder / "config.yaml").write_text(RUN_SETTINGS)
    return folder


@pytest.fixture(scope="module")
def bases(state: AdapterState) -> dict[str, torch.Tensor]:
    weights = BaseByName("toybox").weights
    return {name: weights[name] for name in state.layers}


def header_of(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return dict(file.metadata())


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "lora"])
def test_the_base_is_the_adapters_own_where_none_is_given(
    name: str, run: Path, state: AdapterState, bases: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    output = tmp_path / ("out" + FORMATS.load(name).suffix)
    assert export(ExportConfig(adapter=run, format=name, output=output)) == output
    back, ours = (dict(merged_weights(s, bases)) for s in (load_adapter(output), state))
    assert back.keys() == ours.keys()
    assert max(float((back[n] - W).norm() / (W - bases[n]).norm()) for n, W in ours.items()) <= 1e-4


def test_lora_says_what_it_leaves_out(
    run: Path, state: AdapterState, bases: dict[str, torch.Tensor], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output = tmp_path / "x.safetensors"
    export(ExportConfig(adapter=run, format="lora", output=output, rank=12))
    back = load_adapter(output)
    assert back.kind == "lora" and {layer.rank for layer in back.layers.values()} == {12}
    found, ours = (dict(merged_weights(s, bases)) for s in (back, state))
    left = sum(float((found[n] - W).double().square().sum()) for n, W in ours.items())
    whole = sum(float((W - bases[n]).double().square().sum()) for n, W in ours.items())
    told = (
        f"{len(ours)} layers of rank 12; of the change of the weights {100 * (left / whole) ** 0.5:.3g} % is left out"
    )
    assert told in caplog.text
    export(ExportConfig(adapter=output, format="lora", output=tmp_path / "y.safetensors"))
    again = load_adapter(tmp_path / "y.safetensors")
    assert all(torch.equal(again.layers[name].B, layer.B) for name, layer in back.layers.items()), "it is one already"
    with pytest.raises(ConfigError, match="and kohya keeps the adapter as it is"):
        ExportConfig(adapter=run, format="kohya", rank=12)
    with pytest.raises(FormatError, match="this adapter is a dora"):
        FORMATS.load("lora").write(state, output)


def test_a_base_that_is_given_is_the_one_that_is_read(run: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.safetensors"
    with pytest.raises(ModelError, match="nowhere/sd"):
        export(ExportConfig(adapter=run, format="dual", output=output, pretrained_model_name_or_path="./nowhere/sd"))
    other = load_base("toybox")
    with torch.no_grad():
        for parameter in other.unet.parameters():
            parameter.mul_(1.01)
    other.pipe.save_pretrained(tmp_path / "other")
    given = {"adapter": run, "output": output, "pretrained_model_name_or_path": str(tmp_path / "other")}
    with pytest.raises(AdapterError, match="needs the very base the adapter was trained on"):
        export(ExportConfig(format="dual", **given))
    assert not output.exists()
    own = {**given, "pretrained_model_name_or_path": resolve("toybox")}
    assert export(ExportConfig(format="dual", **own)).is_file()


def test_a_lora_is_exported_and_proved_without_a_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    DIFFUSERS.write(moved_state("lora"), tmp_path / "run.safetensors")

    def nowhere(base: BaseByName) -> None:
        raise ModelError(f"{base.name} is nowhere")

    monkeypatch.setattr(BaseByName, "weights", property(nowhere))
    for name in ("diffusers", "peft", "kohya"):
        output = tmp_path / ("x" + FORMATS.load(name).suffix)
        export(ExportConfig(adapter=tmp_path / "run.safetensors", format=name, output=output))


def test_an_adapter_that_does_not_know_its_base(state: AdapterState, tmp_path: Path) -> None:
    DIFFUSERS.write(AdapterState(state.kind, state.layers), tmp_path / "a.safetensors")
    config = {"adapter": tmp_path / "a.safetensors", "format": "comfyui", "output": tmp_path / "b.safetensors"}
    with pytest.raises(
        ConfigError, match=r"does not say which it was trained on. Give --pretrained_model_name_or_path"
    ):
        export(ExportConfig(**config))
    export(ExportConfig(**config, pretrained_model_name_or_path="toybox"))


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_precision(precision: str, run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    output = tmp_path / "a.safetensors"
    with caplog.at_level(logging.WARNING, logger="dora_diffusion"):
        export(ExportConfig(adapter=run, format="kohya", output=output, precision=precision))
    told = [record.getMessage() for record in caplog.records if "may be off by" in record.getMessage()]
    assert told == [f"In {precision} a layer's change may be off by {100 * BOUNDS[precision]:.2g} % of itself."]
    dtypes = {key.rpartition(".lora")[2]: tensor.dtype for key, tensor in load_file(output).items()}
    assert dtypes["_down.weight"] == dtypes["_up.weight"] == {"fp16": torch.float16, "bf16": torch.bfloat16}[precision]


@pytest.mark.parametrize(("name", "output"), [("kohya", "a.bin"), ("diffusers", "a"), ("peft", "a.safetensors")])
def test_an_output_that_the_format_does_not_write(name: str, output: str, run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="The output"):
        export(ExportConfig(adapter=run, format=name, output=tmp_path / output))


def test_pefts_folder_replaces_its_own_kind_only(run: Path, tmp_path: Path) -> None:
    config = ExportConfig(adapter=run, format="peft", output=tmp_path / "mine")
    assert sorted(p.name for p in export(config).iterdir()) == ["text_encoder", "unet"]
    (tmp_path / "mine" / "text_encoder_2").mkdir()
    export(config)
    assert sorted(p.name for p in (tmp_path / "mine").iterdir()) == ["text_encoder", "unet"]
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"a")
    with pytest.raises(ConfigError, match="is no folder of peft's"):
        export(ExportConfig(adapter=run, format="peft", output=tmp_path / "photos"))
    assert (tmp_path / "photos" / "a.jpg").read_bytes() == b"a"


def test_norms_per_input_column_become_differences_with_a_base(
    state: AdapterState, bases: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    """The way out that the refusal names."""
    name, layer = next((n, layer) for n, layer in state.layers.items() if len(layer.weight_shape) == 2)
    key = "lora_unet_" + name.removeprefix("unet.").replace(".", "_")
    tensors = {f"{key}.lora_down.weight": layer.A, f"{key}.lora_up.weight": layer.B, f"{key}.alpha": torch.tensor(8.0)}
    tensors[f"{key}.dora_scale"] = torch.full((1, layer.A.shape[1]), 2.0)
    save_file(tensors, tmp_path / "columns.safetensors")
    config = {"adapter": tmp_path / "columns.safetensors", "format": "diff", "output": tmp_path / "d.safetensors"}
    with pytest.raises(FormatError, match="per input column"):
        export(ExportConfig(**config))
    export(ExportConfig(**config, pretrained_model_name_or_path="toybox"))
    W0 = bases[name]
    V = W0 + (8.0 / layer.rank) * (layer.B @ layer.A)
    difference = load_file(tmp_path / "d.safetensors")[f"{key}.diff"]
    torch.testing.assert_close(W0 + difference, V * (2.0 / V.norm(dim=0, keepdim=True)), rtol=1e-5, atol=1e-6)


# ------------------------------------------------------------------------------------ headers


@pytest.mark.parametrize("name", FILES)
def test_headers(name: str, run: Path, state: AdapterState, tmp_path: Path) -> None:
    path = export(ExportConfig(adapter=run, format=name, output=tmp_path / "my teapot.safetensors"))
    header = header_of(path)
    assert header["modelspec.sai_model_spec"] == "1.0.1"
    assert header["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert header["modelspec.implementation"] == "diffusers"
    assert header["modelspec.title"] == header["ss_output_name"] == "my teapot"
    assert header["modelspec.trigger_phrase"] == "sks"
    assert header["ss_base_model_version"] == "sd_v1" and header["ss_v2"] == "False"
    assert header["ss_sd_model_name"] == "toybox"
    assert header["ss_network_dim"] == "8"
    assert json.loads(header["ss_tag_frequency"]) == {"my teapot": {"sks": 1}}
    assert json.loads(header["dora_diffusion.fingerprint"]) == state.fingerprint
    settings = json.loads(header["dora_diffusion.settings"])
    assert settings == {"adapter": {"kind": "dora", "rank": 8}, "optim": {"learning_rate": 0.001}}
    assert "/home/me" not in json.dumps(header)


@pytest.mark.parametrize("name", ["kohya", "comfyui", "dual"])
def test_hashes_are_those_of_the_file(name: str, run: Path, tmp_path: Path) -> None:
    """Recomputed from the bytes as A1111 does: the content behind the header."""
    path = export(ExportConfig(adapter=run, format=name, output=tmp_path / "a.safetensors"))
    whole, header = path.read_bytes(), header_of(path)
    (length,) = struct.unpack("<Q", whole[:8])
    assert header["sshs_model_hash"] == hashlib.sha256(whole[8 + length :]).hexdigest()
    assert header["modelspec.hash_sha256"] == f"0x{header['sshs_model_hash']}"
    # The older one: 64 KiB past the first MiB, of a file with nothing but ss_* in its header.
    training = {key: value for key, value in header.items() if key.startswith("ss_")}
    save_file(load_file(path), tmp_path / "b.safetensors", training)
    legacy = (tmp_path / "b.safetensors").read_bytes()[0x100000:0x110000]
    assert header["sshs_legacy_hash"] == hashlib.sha256(legacy).hexdigest()[:8]


def test_a_dora_states_its_axis_and_a_lora_is_sd_scripts_own(state: AdapterState) -> None:
    header = network_header(state, Path("a.safetensors"), "sd1")
    assert header["ss_network_module"] == "lycoris.kohya"
    assert json.loads(header["ss_network_args"]) == {"algo": "lora", "dora_wd": "True", "wd_on_output": "True"}
    plain = network_header(moved_state("lora"), Path("a.safetensors"), "sd1")
    assert plain["ss_network_module"] == "networks.lora" and plain["ss_network_args"] == "{}"
    assert plain["ss_network_alpha"] == "12"


@pytest.mark.parametrize(
    ("family", "prediction_type", "version", "architecture"),
    [
        ("sd1", "epsilon", "sd_v1", "stable-diffusion-v1/lora"),
        ("sd2", "epsilon", "sd_v2", "stable-diffusion-v2-512/lora"),
        ("sd2", "v_prediction", "sd_v2_v", "stable-diffusion-v2-768-v/lora"),
        ("sdxl", "epsilon", "sdxl_base_v1-0", "stable-diffusion-xl-v1-base/lora"),
    ],
)
def test_families_are_told_as_a1111_tells_them_apart(
    family: str, prediction_type: str, version: str, architecture: str, state: AdapterState
) -> None:
    told = AdapterState("dora", state.layers, "b", {}, {"prediction_type": prediction_type, "resolution": "512"})
    header = network_header(told, Path("a.safetensors"), family)
    assert header["ss_base_model_version"] == version and header["ss_v2"] == str(family == "sd2")
    spec = modelspec_header(told, Path("a.safetensors"), family, "diffusers")
    assert spec["modelspec.architecture"] == architecture and spec["modelspec.resolution"] == "512x512"
    assert spec["modelspec.prediction_type"] == {"epsilon": "epsilon", "v_prediction": "v"}[prediction_type]


@pytest.mark.parametrize("named", ["run", "file"])
def test_the_adapter_itself_is_not_written_over(named: str, run: Path, tmp_path: Path) -> None:
    file = run / WEIGHTS_NAME
    before = file.read_bytes()
    with pytest.raises(ConfigError, match="is the adapter itself"):
        export(ExportConfig(adapter=run if named == "run" else file, format="kohya", output=file))
    with pytest.raises(ConfigError, match="is the adapter itself"):
        resize_file(ResizeConfig(adapter=run, rank=2, output=file))
    assert file.read_bytes() == before


def test_a_full_change_gets_the_ranks_that_lora_has_by_default(run: Path, tmp_path: Path) -> None:
    export(ExportConfig(adapter=run, format="diff", output=tmp_path / "diff.safetensors"))
    convert_file(ConvertConfig(adapter=tmp_path / "diff.safetensors", format="lora", output=tmp_path / "l.safetensors"))
    assert max(layer.rank for layer in load_adapter(tmp_path / "l.safetensors").layers.values()) == 32


# ------------------------------------------------------------------------------------ what lies there already


def test_an_export_of_ours_gives_way_to_the_next(run: Path, tmp_path: Path) -> None:
    for name in ("comfyui", "kohya", "kohya"):
        export(ExportConfig(adapter=run, format=name, output=tmp_path / "x.safetensors"))
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        assert any(key.startswith("lora_unet_") for key in file.keys())  # noqa: SIM118 - safe_open is not a dict
    (tmp_path / "folder").mkdir()  # by the user, to write into
    for _ in range(2):
        export(ExportConfig(adapter=run, format="peft", output=tmp_path / "folder"))


@pytest.mark.parametrize("content", ["another tool's", "no safetensors"])
@pytest.mark.parametrize("make", [export, convert_file])
def test_what_is_no_export_of_ours_stays(make: Callable[..., Any], content: str, run: Path, tmp_path: Path) -> None:
    output = tmp_path / "photos-of-my-life.safetensors"
    if content == "another tool's":
        save_file({"weight": torch.ones(3)}, output, {"dora_diffusion.merged": "{}"})
    else:
        output.write_bytes(b"years of work")
    before = output.read_bytes()
    config = (ExportConfig if make is export else ConvertConfig)(adapter=run, format="kohya", output=output)
    with pytest.raises(ConfigError, match="of-my-life.safetensors is there and is no export of ours; give another --o"):
        make(config)
    assert output.read_bytes() == before


def test_a_folder_of_pefts_own_stays(run: Path, tmp_path: Path) -> None:
    output = export(ExportConfig(adapter=run, format="peft", output=tmp_path / "folder"))
    weights = output / "unet" / "adapter_model.safetensors"
    save_file(load_file(weights), weights, {"format": "pt"})  # as PEFT saves it, trained further
    before = weights.read_bytes()
    with pytest.raises(ConfigError, match="folder is there and is no export of ours"):
        export(ExportConfig(adapter=run, format="peft", output=output))
    assert weights.read_bytes() == before


@pytest.mark.parametrize("place", [WEIGHTS_NAME, "checkpoint-5/adapter.safetensors"])
def test_what_another_run_learned_stays(place: str, run: Path, state: AdapterState, tmp_path: Path) -> None:
    output = tmp_path / "other" / place
    DIFFUSERS.write(state, output)
    (tmp_path / "other" / "config.yaml").write_text(RUN_SETTINGS)
    before = output.read_bytes()
    with pytest.raises(ConfigError, match="is what a run learned, which would be gone; give another --output"):
        export(ExportConfig(adapter=run, format="kohya", output=output))
    assert output.read_bytes() == before
