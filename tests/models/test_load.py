"""A base is found by name and read from every layout people have; what cannot be read is told in plain words."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from pickled import as_pickles
from safetensors.torch import load_file
from tiny_model import tensors_of

from dora_diffusion.errors import ModelError
from dora_diffusion.models import BaseModel, load_base, resolve


def assert_same(base: BaseModel, pipe: Any, tolerance: float = 0.0) -> None:
    ours, theirs = tensors_of(base.pipe), tensors_of(pipe)
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=tolerance, atol=tolerance, msg=name)


@pytest.fixture
def copy(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the plain folder that a test may break."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "copy"))


def test_a_folder_of_plain_diffusers(tiny: Any, tiny_folder: Path) -> None:
    base = load_base(str(tiny_folder))
    assert_same(base, tiny)
    assert (base.name, base.family.name, base.dtype) == (str(tiny_folder), "sd1", torch.float32)
    assert (base.native_resolution, base.vae_scale, base.prediction_type) == (64, 8, "epsilon")


def test_a_sharded_folder(tiny: Any, sharded_folder: Path) -> None:
    assert len(list((sharded_folder / "unet").glob("*-of-*.safetensors"))) > 2
    assert_same(load_base(str(sharded_folder)), tiny)


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_a_folder_of_fp16_files(tiny: Any, fp16_folder: Path, variant: str | None) -> None:
    assert not list(fp16_folder.rglob("diffusion_pytorch_model.safetensors"))
    base = load_base(str(fp16_folder), variant=variant)
    assert base.dtype == torch.float32
    assert_same(base, tiny, tolerance=1e-3)


def test_the_embedded_base_is_read_without_a_variant() -> None:
    folder = Path(resolve("toybox"))
    assert max(path.stat().st_size for path in folder.rglob("*.safetensors")) < 15e6  # in shards
    base = load_base("toybox", dtype=torch.bfloat16)
    assert base.name == "toybox" and base.native_resolution == 128 and base.prediction_type == "v_prediction"
    assert {part.dtype for part in base.adaptable().values()} == {torch.bfloat16} and base.vae.dtype == torch.float32
    stored = load_file(next((folder / "unet").glob("*-00001-of-*.safetensors")))
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    loaded = base.unet.state_dict()
    assert stored and all(torch.equal(loaded[name], tensor.bfloat16()) for name, tensor in stored.items())


def test_plain_files_are_preferred_to_a_variant(
    tiny: Any, tiny_folder: Path, fp16_folder: Path, tmp_path: Path
) -> None:
    both = tmp_path / "both"
    shutil.copytree(tiny_folder, both)
    shutil.copytree(fp16_folder, both, dirs_exist_ok=True)
    assert_same(load_base(str(both)), tiny)


@pytest.mark.parametrize("wanted", ["epsilon", "v_prediction"])
def test_the_prediction_type_can_be_overridden(tiny_folder: Path, wanted: str) -> None:
    base = load_base(str(tiny_folder), prediction_type=wanted)
    assert base.prediction_type == wanted
    before = load_base(str(tiny_folder)).pipe.scheduler.config
    assert {**base.pipe.scheduler.config, "prediction_type": None} == {**before, "prediction_type": None}


def test_pickles_are_refused_unless_allowed(tiny: Any, copy: Path) -> None:
    as_pickles(copy)
    with pytest.raises(ModelError, match=r"only has \.bin weights.*pass --allow_pickle"):
        load_base(str(copy))
    assert_same(load_base(str(copy), allow_pickle=True), tiny)


def test_a_pickle_of_another_part_is_refused_too(copy: Path) -> None:
    torch.save(
        load_file(copy / "vae" / "diffusion_pytorch_model.safetensors"), copy / "vae" / "diffusion_pytorch_model.bin"
    )
    (copy / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(ModelError, match="cannot be loaded: .*safetensors"):
        load_base(str(copy))


def test_allowing_pickles_still_reads_safetensors(tiny: Any, tiny_folder: Path) -> None:
    assert_same(load_base(str(tiny_folder), allow_pickle=True), tiny)
    assert load_base("toybox", allow_pickle=True).native_resolution == 128


def test_loading_changes_no_library_settings(tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = logging.getLogger().level
    load_base(str(tiny_folder))
    assert capsys.readouterr() == ("", "") and logging.getLogger().level == before


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"_class_name": "KandinskyPipeline"}, r"is a KandinskyPipeline\. Supported families: sd1, sd2, sdxl\."),
        ({"_class_name": None}, r"is a model of no known kind\. Supported families: sd1, sd2, sdxl\."),
        ({"_class_name": "StableDiffusion3Pipeline"}, "is Stable Diffusion 3, .*Supported families: sd1, sd2, sdxl"),
        ({"_class_name": "FluxPipeline"}, "is FLUX, a transformer"),
        ({"_class_name": "IFPipeline"}, "is DeepFloyd IF, which draws pixels"),
        ({"_class_name": "StableDiffusionInpaintPipeline"}, "is an inpainting model.*Train the text-to-image model"),
        ({"_class_name": "StableDiffusionXLImg2ImgPipeline"}, r"is SDXL's refiner: .*stable-diffusion-xl-base-1\.0"),
        ({"_class_name": "StableDiffusionXLPipeline", "requires_aesthetics_score": True}, "is SDXL's refiner"),
        ({"_class_name": "StableDiffusionXLPipeline"}, r"has no text encoder 2 \(its model_index.json lists none\)"),
        ({"scheduler": ["diffusers", "EDMEulerScheduler"]}, r"is trained in the EDM formulation"),
        ({"text_encoder": None}, r"has no text encoder \(its model_index.json lists none\)"),
        ({"text_encoder": [None, None]}, "has no text encoder"),
        ({"vae": []}, "has no vae"),
        ({"unet": True}, "has no unet"),
        ({"tokenizer": None}, "has no tokenizer"),
        ({"scheduler": None}, "has no scheduler"),
    ],
)
def test_an_index_that_does_not_fit(copy: Path, change: dict[str, Any], told: str) -> None:
    path = copy / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ModelError, match=told):
        load_base(str(copy))


@pytest.mark.parametrize(
    ("content", "told"),
    [("{nope", "cannot be read as JSON"), ("[]", "is not a model index"), ("", "cannot be read as JSON")],
)
def test_a_broken_index(copy: Path, content: str, told: str) -> None:
    (copy / "model_index.json").write_text(content)
    with pytest.raises(ModelError, match=told):
        load_base(str(copy))


@pytest.mark.parametrize(
    ("gone", "told"),
    [
        ("model_index.json", r"is no model folder: model_index.json is missing; it holds scheduler, text_encoder"),
        ("unet/diffusion_pytorch_model.safetensors", r"has no UNet weights: unet/ holds no \.safetensors file"),
        ("vae/diffusion_pytorch_model.safetensors", "cannot be loaded: "),
        ("text_encoder/model.safetensors", "cannot be loaded: "),
        ("unet/config.json", "cannot be loaded: "),
    ],
)
def test_a_missing_file(copy: Path, gone: str, told: str) -> None:
    (copy / gone).unlink()
    with pytest.raises(ModelError, match=told) as caught:
        load_base(str(copy))
    assert "\n" not in str(caught.value)


def test_a_missing_folder_and_a_cut_file(copy: Path) -> None:
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match="cannot be loaded: "):
        load_base(str(copy))
    shutil.rmtree(copy / "unet")
    with pytest.raises(ModelError, match="has no folder unet; it is incomplete"):
        load_base(str(copy))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nosuch", "nosuch is neither a folder on this machine nor a hub name"),
        ("./nosuch/model", "neither a folder on this machine nor a hub name"),
        ("a/b/c", "neither a folder on this machine nor a hub name"),
        ("a b/c d", "neither a folder on this machine nor a valid hub name"),
        ("owner/model", "owner/model is no folder here, and the hub cannot be reached"),
    ],
)
def test_a_name_that_leads_nowhere(name: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=told):
        load_base(name)


def test_a_part_is_no_base(tiny_folder: Path) -> None:
    with pytest.raises(ModelError, match=r"is one part of a model in diffusers' layout\. Give the folder"):
        load_base(str(tiny_folder / "unet" / "diffusion_pytorch_model.safetensors"))


def test_a_variant_that_is_not_there(tiny_folder: Path) -> None:
    with pytest.raises(ModelError, match="cannot be loaded: .*variant=fp32"):
        load_base(str(tiny_folder), variant="fp32")


def test_toybox_without_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DORA_DIFFUSION_TOYBOX", str(tmp_path))
    with pytest.raises(ModelError, match="'toybox' has no weights at .*set DORA_DIFFUSION_TOYBOX"):
        load_base("toybox")
