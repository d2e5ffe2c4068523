"""Base models: added after a check, told when they go away. The checks themselves run on real folders and files."""

import json
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.pickled import as_pickles
from shop import Shop, fake_workshop

from dora_diffusion.errors import ModelError, StudioError
from dora_diffusion.models import load_base, resolve
from dora_diffusion.studio.bases import TOYBOX, shown_name, tidied_name
from dora_diffusion.studio.tasks.checking import check_base, devices, wanted_files
from dora_diffusion.studio.tasks.desk import Desk


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    made = Shop(tmp_path / "home", fake_workshop(tmp_path), **{"dog-1": None})
    yield made
    made.close()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(resolve("toybox"), tmp_path / "model"))


def test_toybox_is_always_there_and_is_what_it_says(shop: Shop, toybox: Any) -> None:
    assert shop.bases.list() == [TOYBOX] and shop.bases.check("toybox").ok and shop.bases.add("toybox") == TOYBOX
    assert (TOYBOX.family, TOYBOX.size) == (toybox.family.name, toybox.native_resolution)
    with pytest.raises(StudioError, match="built-in base stays"):
        shop.bases.remove("toybox")


def test_added_listed_missing_removed(shop: Shop, model: Path) -> None:
    base = shop.bases.add(f' "{model}" ')
    assert (base.name, base.label, base.place, base.size, base.is_missing) == (
        str(model),
        "model",
        "folder",
        512,
        False,
    )
    assert shop.bases.list() == [TOYBOX, base] and shop.bases.add(str(model)) == base
    assert shop.bases.called("model") == base and shop.bases.called("nobody") is None
    model.rename(model.with_name("moved"))
    gone = shop.bases.get(base.name)
    assert gone.is_missing and "folder model is gone" in gone.note
    model.with_name("moved").rename(model)
    assert not shop.bases.get(base.name).is_missing
    shop.bases.remove(base.name)
    assert shop.bases.list() == [TOYBOX]
    with pytest.raises(StudioError, match="not in the list"):
        shop.bases.get(base.name)


def test_files_and_hub_names_go_missing_too(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "one.safetensors"
    file.touch()
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    cached = tmp_path / "hub" / "models--owner--good" / "snapshots"
    cached.mkdir(parents=True)
    one, hub = shop.bases.add(str(file)), shop.bases.add("owner/good")
    assert (one.place, hub.place) == ("file", "hub") and not one.is_missing and not hub.is_missing
    file.unlink()
    cached.rmdir()
    assert [base.is_missing for base in shop.bases.list()] == [False, True, True]


def test_a_base_that_is_refused_is_not_kept(shop: Shop) -> None:
    found = shop.bases.check("owner/bad")
    assert not found.ok and found.words == "owner/bad is no model." and found.base is None
    with pytest.raises(StudioError, match="no model"):
        shop.bases.add("owner/bad")
    assert shop.bases.list() == [TOYBOX]


def test_a_base_that_a_subject_needs_stays(shop: Shop, model: Path) -> None:
    base = shop.bases.add(str(model))
    shop.add_subject("cat-1", "Tom", "cat", base=base.name)
    with pytest.raises(StudioError, match="model is the base of Tom"):
        shop.bases.remove(base.name)


@pytest.mark.parametrize("odd", ["", "  ", "''", None, 5, "x" * 1001, "a\x00b", "a\nb"])
def test_odd_names_are_refused(shop: Shop, odd: Any) -> None:
    assert not shop.bases.check(odd).ok
    assert not shop.workshop.is_running


def test_names_are_whole_and_tell_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert tidied_name("~/models/../x") == str(tmp_path / "x")
    assert tidied_name("owner/model") == "owner/model"
    assert [shown_name(name) for name in ("/a/b/c.safetensors", "owner/model", "toybox")] == [
        "c.safetensors",
        "owner/model",
        "toybox",
    ]


def check(name: object) -> dict[str, Any]:
    return check_base(Desk(), name=str(name))


def test_a_whole_folder_passes(model: Path) -> None:
    assert check(model) == {"family": "sd1", "size": 128, "note": ""}


def cut_off(model: Path) -> None:
    file = model / "vae" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def without(name: str) -> Any:
    return lambda model: (model / name).unlink() if (model / name).is_file() else shutil.rmtree(model / name)


def index_with(**entries: Any) -> Any:
    def change(model: Path) -> None:
        file = model / "model_index.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **entries}))

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (cut_off, r"is damaged: diffusion_pytorch_model.safetensors is not whole"),
        (without("model_index.json"), "model_index.json is missing; it holds README.md"),
        (without("unet"), "its folder unet is missing"),
        (
            without("unet/diffusion_pytorch_model-00002-of-00002.safetensors"),
            "unet lacks diffusion_pytorch_model-00002",
        ),
        (without("text_encoder/model.safetensors"), "text_encoder holds no .safetensors"),
        (as_pickles, "only has .bin weights in .*pickles"),
        (index_with(_class_name="IFPipeline"), "DeepFloyd"),
        (index_with(_class_name="StableDiffusion3Pipeline"), "Stable Diffusion 3"),
        (index_with(_class_name="FluxPipeline"), "FLUX"),
        (index_with(_class_name="StableDiffusionXLImg2ImgPipeline"), "refiner"),
        (index_with(_class_name="StableDiffusionInpaintPipeline"), "inpainting"),
        (index_with(vae=[None, None]), "incomplete: its model_index.json lists no vae"),
        (lambda model: (model / "model_index.json").write_text("{"), "cannot be read as JSON"),
    ],
)
def test_what_cannot_be_used_is_told_plainly(model: Path, change: Any, says: str) -> None:
    change(model)
    with pytest.raises(ModelError, match=says) as caught:
        check(model)
    assert "--" not in str(caught.value) and "Traceback" not in str(caught.value)


def safetensors_of(path: Path, names: dict[str, list[int]]) -> Path:
    """A file of zeros in float16."""
    header, at = {}, 0
    for name, shape in names.items():
        size = 2
        for side in shape:
            size *= side
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(at))
    return path


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ({"unet.lora_A.weight": [1, 1], "x.lora_down.weight": [1, 1]}, "is an adapter, not a base"),
        ({"model.diffusion_model.joint_blocks.0.x": [1]}, "Stable Diffusion 3"),
        ({"double_blocks.0.img": [1]}, "FLUX"),
        ({"anything": [1]}, "holds no UNet"),
    ],
)
def test_single_files_of_other_kinds(tmp_path: Path, names: dict[str, list[int]], says: str) -> None:
    with pytest.raises(ModelError, match=says):
        check(safetensors_of(tmp_path / "a.safetensors", names))


def test_single_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "a.ckpt").write_bytes(b"x")
    with pytest.raises(ModelError, match="is a pickle .*Pickles are not read in the studio") as caught:
        check(tmp_path / "a.ckpt")
    assert "--" not in str(caught.value)
    (tmp_path / "a.txt").touch()
    with pytest.raises(ModelError, match="must be .safetensors"):
        check(tmp_path / "a.txt")
    (tmp_path / "b.safetensors").write_bytes(b"short")
    with pytest.raises(ModelError, match="no whole checkpoint"):
        check(tmp_path / "b.safetensors")


REPOSITORY = [
    ".gitattributes",
    "README.md",
    "model_index.json",
    "v1-5-pruned.ckpt",
    "v1-5-pruned.safetensors",
    "safety_checker/model.safetensors",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "text_encoder/model.fp16.safetensors",
    "text_encoder/pytorch_model.bin",
    "tokenizer/merges.txt",
    "unet/config.json",
    "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
    "unet/diffusion_pytorch_model-00002-of-00002.safetensors",
    "unet/diffusion_pytorch_model.safetensors.index.json",
    "unet/diffusion_pytorch_model.fp16-00001-of-00002.safetensors",
    "unet/diffusion_pytorch_model.safetensors.index.fp16.json",
    "unet/diffusion_pytorch_model.non_ema.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.fp16.safetensors",
    "vae/deeper/model.safetensors",
]


def test_a_download_takes_what_is_read_once_and_no_pickles() -> None:
    wanted = wanted_files(REPOSITORY, ("unet", "vae", "text_encoder", "tokenizer", "scheduler"))
    assert set(wanted) == {
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "tokenizer/merges.txt",
        "unet/config.json",
        "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
        "unet/diffusion_pytorch_model-00002-of-00002.safetensors",
        "unet/diffusion_pytorch_model.safetensors.index.json",
        "vae/config.json",
        "vae/diffusion_pytorch_model.fp16.safetensors",
    }


def test_a_download_is_asked_for_and_runs_in_a_process_of_its_own(shop: Shop) -> None:
    shop.workshop.call("echo")
    pid = shop.workshop.pid
    assert shop.bases.add("owner/good", download=True).place == "hub"
    assert shop.workshop.pid == pid
    assert "download_base 0" in (shop.workshop.log_file).read_text(), "it alone may reach the network"
    assert "check_base 1" not in shop.workshop.log_file.read_text()


def test_names_that_lead_nowhere(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="There is nothing at"):
        check(tmp_path / "nothing")
    with pytest.raises(ModelError, match="is not on this machine.*allow the download"):
        check("owner/model-that-is-not-cached")


def test_devices_are_told() -> None:
    assert devices(Desk())["devices"][-1]["kind"] == "cpu"


def test_the_listed_base_is_what_is_loaded(model: Path) -> None:
    assert load_base(str(model)).native_resolution == check(model)["size"]
