"""The original layout: against an inverse written from the published names, and against diffusers' own conversions."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch
import transformers
from diffusers.loaders import single_file_utils as theirs
from original_layout import original_layout
from safetensors.torch import load_file, save_file
from small_models import FAMILIES, small_pipeline

from dora_diffusion.errors import MachineError, ModelError
from dora_diffusion.formats.base_files import open_base
from dora_diffusion.formats.checkpoint_layout import CheckpointLayout
from dora_diffusion.formats.streamed import stream_safetensors
from dora_diffusion.models import load_base
from dora_diffusion.models.single_file import CONFIGURATIONS

PREFIXES = {
    ("sd2", "text_encoder"): "cond_stage_model.model.",
    ("sdxl", "text_encoder_2"): "conditioner.embedders.1.model.",
}


@pytest.fixture(scope="module")
def small() -> dict[str, Any]:
    return {family: small_pipeline(family) for family in FAMILIES}


@pytest.fixture(scope="module")
def folders(small: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("small")
    for family, pipe in small.items():
        pipe.save_pretrained(root / family)
    return {family: root / family for family in FAMILIES}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folders_tensors_lie_where_the_published_files_have_them(
    family: str, small: dict[str, Any], folders: dict[str, Path]
) -> None:
    found, expected = open_base(str(folders[family])).checkpoint, original_layout(small[family])
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        assert torch.equal(found[key], tensor), key


@pytest.mark.parametrize("family", FAMILIES)
def test_adaptable_layers_are_the_models_own(family: str, folders: dict[str, Path]) -> None:
    files, base = open_base(str(folders[family])), load_base(str(folders[family]))
    expected = {
        base.layer_name(component, path): module.weight
        for component, model in base.adaptable().items()
        for path, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)
    }
    assert files.weights.keys() == expected.keys() == files.places.keys() and files.family == family
    for name, weight in expected.items():
        assert torch.equal(files.weights[name], weight), name
        assert torch.equal(files.places[name].take(files.checkpoint[files.places[name].key]), weight), name
    assert "unet.nothing" not in files.weights and len(files.weights) == len(expected)


def empty_model(folder: str, part: str) -> torch.nn.Module:
    library, kind = json.loads((CONFIGURATIONS / folder / "model_index.json").read_text())[part]
    cls = getattr({"diffusers": diffusers, "transformers": transformers}[library], kind)
    with torch.device("meta"):
        if library == "diffusers":
            return cls.from_config(cls.load_config(CONFIGURATIONS / folder, subfolder=part))
        return cls(cls.config_class.from_pretrained(CONFIGURATIONS / folder, subfolder=part))


def settings(folder: str, part: str) -> dict[str, Any]:
    return json.loads((CONFIGURATIONS / folder / part / "config.json").read_text())


FULL_SIZE = [
    (folder, family, part)
    for folder, family in (("sd1", "sd1"), ("sd2-768-v", "sd2"), ("sdxl", "sdxl"))
    for part in ("unet", "vae", "text_encoder", *(["text_encoder_2"] if family == "sdxl" else []))
]


@pytest.mark.parametrize(("folder", "family", "part"), FULL_SIZE)
def test_full_size_models_come_back_through_diffusers_conversions(folder: str, family: str, part: str) -> None:
    """Every tensor of the published sizes, on the meta device: names and shapes."""
    layout = CheckpointLayout.of(family, settings(folder, "unet"), settings(folder, "vae"))
    model = empty_model(folder, part)
    pieces: dict[str, list[tuple[int, torch.Tensor]]] = {}
    for name, tensor in model.state_dict().items():
        place = layout.place(part, name)
        assert place is not None
        pieces.setdefault(place.key, []).append((place.part or 0, place.shape(tensor)))
    assert all(sorted(number for number, _ in found) in ([0], [0, 1, 2]) for found in pieces.values())
    checkpoint = {key: torch.cat([tensor for _, tensor in found]) for key, found in pieces.items()}
    if part == "unet":
        back = theirs.convert_ldm_unet_checkpoint(checkpoint, settings(folder, "unet"))
    elif part == "vae":
        back = theirs.convert_ldm_vae_checkpoint(checkpoint, settings(folder, "vae"))
    elif (family, part) in PREFIXES:
        width = settings(folder, part)["hidden_size"]
        like = SimpleNamespace(config=SimpleNamespace(hidden_size=width))
        back = theirs.convert_open_clip_checkpoint(like, checkpoint, PREFIXES[family, part])
    else:
        prefix = "cond_stage_model.transformer." if family == "sd1" else "conditioner.embedders.0.transformer."
        back = theirs.convert_ldm_clip_checkpoint(checkpoint, remove_prefix=prefix)
    bare = {name.removeprefix("text_model."): tuple(tensor.shape) for name, tensor in back.items()}
    assert bare == {name.removeprefix("text_model."): tuple(t.shape) for name, t in model.state_dict().items()}


def test_published_folders_name_the_autoencoders_attention_as_they_did_then() -> None:
    layout = CheckpointLayout.of("sd1", settings("sd1", "unet"), settings("sd1", "vae"))
    for old, new in {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}.items():
        for kind in ("weight", "bias"):
            place = layout.place("vae", f"encoder.mid_block.attentions.0.{old}.{kind}")
            assert place == layout.place("vae", f"encoder.mid_block.attentions.0.{new}.{kind}")
    assert layout.place("text_encoder", "text_model.embeddings.position_ids") is None


def test_sd2s_file_has_the_layer_that_nobody_reads_and_readers_miss(tmp_path: Path) -> None:
    """OpenCLIP has 24, the folders 23; diffusers ignores the last."""
    pipe = small_pipeline("sd2")
    config = pipe.text_encoder.config
    config.num_hidden_layers, config.hidden_size, config.intermediate_size = 23, 4, 4
    pipe.text_encoder = transformers.CLIPTextModel(config)
    pipe.save_pretrained(tmp_path)
    checkpoint = open_base(str(tmp_path)).checkpoint
    blocks = {key.split("resblocks.")[1].split(".")[0] for key in checkpoint if "resblocks." in key}
    assert blocks == {str(k) for k in range(24)}
    last, before = (
        {key.split(".", 5)[5]: checkpoint[key] for key in checkpoint if f"resblocks.{k}." in key} for k in (23, 22)
    )
    assert last.keys() == before.keys() and all(torch.equal(last[key], before[key]) for key in last)
    assert torch.equal(checkpoint["cond_stage_model.model.text_projection"], torch.eye(4))


def test_half_precision_variants_are_found_and_broken_files_told(tmp_path: Path, small: dict[str, Any]) -> None:
    small["sd1"].save_pretrained(tmp_path, variant="fp16")
    files = open_base(str(tmp_path))
    name = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    expected = small["sd1"].unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_q.weight
    assert torch.equal(files.weights[name], expected)
    broken = tmp_path / "unet" / "diffusion_pytorch_model.fp16.safetensors"
    broken.write_bytes(broken.read_bytes()[:1000])
    with pytest.raises(ModelError, match="is no whole safetensors file"):
        open_base(str(tmp_path))


def test_a_checkpoint_of_another_size_is_refused(small: dict[str, Any], tmp_path: Path) -> None:
    save_file(original_layout(small["sd1"]), tmp_path / "x.safetensors")
    with pytest.raises(ModelError, match=r"of another size than the published models \(\d+ layers are missing, first"):
        open_base(str(tmp_path / "x.safetensors"))


def test_toybox_is_read_from_its_shards(toybox: Any) -> None:
    files = open_base("toybox")
    path = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
    assert files.schedule == toybox.schedule_facts()
    assert torch.equal(files.weights[f"unet.{path}"], toybox.unet.get_submodule(path).weight)
    assert "text_encoder.text_model.encoder.layers.0.self_attn.q_proj" in files.weights


class TestStream:
    def test_is_read_by_the_library_and_is_the_same_bytes_every_time(self, tmp_path: Path) -> None:
        tensors = {
            "b": torch.randn(3, 4).t(),
            "a": torch.randn(7, dtype=torch.float64).half(),
            "c é": torch.zeros(0),
            "d": torch.tensor(1.5, dtype=torch.bfloat16),
        }
        stream_safetensors(tmp_path / "new" / "x.safetensors", tensors, tensors, {"k": "v"})
        stream_safetensors(tmp_path / "y.safetensors", [*tensors][::-1], tensors, {"k": "v"})
        found = load_file(tmp_path / "new" / "x.safetensors")
        assert found.keys() == tensors.keys()
        assert all(torch.equal(found[key], t) and found[key].dtype == t.dtype for key, t in tensors.items())
        assert (tmp_path / "y.safetensors").read_bytes() == (tmp_path / "new" / "x.safetensors").read_bytes()

    def test_a_failure_keeps_the_old_file(self, tmp_path: Path) -> None:
        path = tmp_path / "x.safetensors"
        save_file({"old": torch.ones(1)}, path)

        class Failing(dict[str, torch.Tensor]):
            def __getitem__(self, name: str) -> torch.Tensor:
                raise OSError(28, "No space left on device")

        with pytest.raises(MachineError, match="cannot be written: No space left"):
            stream_safetensors(path, ["a"], Failing(), {})
        assert list(load_file(path)) == ["old"] and [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]
