"""The real workshop's process on toybox: pixels, exports and deaths."""

import hashlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.moved import moved_state
from PIL import Image
from shop import Shop

from dora_diffusion.adapters import AdapterState
from dora_diffusion.errors import StudioError
from dora_diffusion.formats import load_adapter
from dora_diffusion.inference import read_settings
from dora_diffusion.models import load_base
from dora_diffusion.registry import FORMATS
from dora_diffusion.studio.orders import Order
from dora_diffusion.studio.workshop import Workshop

REX = Order(subject_id="dog-1", prompt="a photo of <Rex> on the beach", num_inference_steps=2, seed=7)


@pytest.fixture(scope="module")
def state() -> AdapterState:
    return moved_state("dora", size=0.05)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, state: AdapterState) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    file = folder / "pytorch_lora_weights.safetensors"
    FORMATS.load("diffusers").write(state, file)
    made = Shop(folder / "home", Workshop(folder / "home" / "app.log"), **{"dog-1": file})
    yield made
    made.close()


def pixels(path: Path) -> bytes:
    with Image.open(path) as image:
        return image.tobytes()


def test_the_same_order_gives_the_same_pixels_alone_and_among_others(shop: Shop) -> None:
    first, second = shop.pictures.draw(replace(REX, num_images=2))
    order, notes = shop.pictures.read(second.path)
    assert notes == [] and order == replace(REX, seed=8)
    (again,) = shop.pictures.draw(order)
    assert pixels(again.path) == pixels(second.path) != pixels(first.path)
    with Image.open(first.thumb) as thumb:
        assert thumb.format == "JPEG" and max(thumb.size) <= 256
    settings = read_settings(first.path)
    adapter = shop.adapters["dog-1"]
    assert adapter is not None and settings["adapter_sha256"] == hashlib.sha256(adapter.read_bytes()).hexdigest()
    assert settings["prompt"] == "a photo of sks dog on the beach" and settings["subject"] == "Rex"
    with Image.open(first.path) as image:
        assert image.info["parameters"].startswith("a photo of sks dog on the beach\nSteps: 2, Sampler: ")
    assert str(shop.home.path) not in first.path.read_bytes().decode("latin-1")


def test_strength_0_is_the_base_exactly(shop: Shop) -> None:
    (with_subject,) = shop.pictures.draw(REX)
    (none,) = shop.pictures.draw(replace(REX, strength=0.0))
    (base,) = shop.pictures.draw(replace(REX, subject_id=None, prompt=none.sent))
    assert pixels(none.path) == pixels(base.path) != pixels(with_subject.path)


def test_sizes_and_samplers_are_taken(shop: Shop) -> None:
    (wide,) = shop.pictures.draw(replace(REX, width=96, height=64, sampler="euler"))
    assert Image.open(wide.path).size == (96, 64) and (wide.order.width, wide.order.height) == (96, 64)
    assert read_settings(wide.path)["sampler"] == "euler"


def test_stop_reaches_it_between_sampling_steps(shop: Shop) -> None:
    stop = threading.Event()
    steps: list[int] = []

    def step(done: int, total: int) -> None:
        steps.append(done)
        stop.set()

    began = time.monotonic()
    assert list(shop.pictures.draw(replace(REX, num_inference_steps=150), step, stop)) == []
    assert time.monotonic() - began < 20 and len(steps) < 100
    assert len(list(shop.pictures.draw(REX))) == 1


def test_killed_it_is_told_and_the_next_order_is_drawn(shop: Shop) -> None:
    def kill(done: int, total: int) -> None:
        pid = shop.workshop.pid
        if pid is not None and done == 1:
            os.kill(pid, signal.SIGKILL)

    with pytest.raises(StudioError, match="ended by signal 9"):
        list(shop.pictures.draw(replace(REX, num_inference_steps=50), kill))
    assert len(list(shop.pictures.draw(REX))) == 1


def test_it_leaves_in_the_middle_of_a_picture_when_its_server_is_killed(tmp_path: Path) -> None:
    server = f"""
import pathlib
from dora_diffusion.studio.workshop import Workshop
workshop = Workshop(pathlib.Path({str(tmp_path / "log")!r}))
drawing = dict(base="toybox", adapter=None, strength=1.0, prompt="a duck", negative_prompt="", guidance_scale=None)
files = [dict(seed=1, path={str(tmp_path / "a.png")!r}, thumb={str(tmp_path / "a.jpg")!r})]
said = lambda event: print(workshop.pid, flush=True) if event["event"] == "step" else None
more = dict(num_inference_steps=500, sampler="model", width=None, height=None, remember=dict())
workshop.call("draw", dict(**drawing, **more, files=files), said)
"""
    child = subprocess.Popen([sys.executable, "-c", server], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    pid = int(child.stdout.readline())
    child.kill()
    child.wait()
    child.stdout.close()
    until = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists() and Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < until, "it went on without anybody to draw for"
        time.sleep(0.05)
    assert not list(tmp_path.glob("*.png"))


def test_an_adapter_that_cannot_be_read_is_told(shop: Shop, tmp_path: Path) -> None:
    whole = shop.adapters["dog-1"]
    assert whole is not None
    shop.adapters["dog-1"] = tmp_path / "cut.safetensors"
    shop.adapters["dog-1"].write_bytes(whole.read_bytes()[:-100])
    try:
        with pytest.raises(StudioError, match=r"cut\.safetensors"):
            list(shop.pictures.draw(REX))
        with pytest.raises(StudioError, match=r"cut\.safetensors"):
            shop.exports.export("dog-1", "comfyui")
    finally:
        shop.adapters["dog-1"] = whole
    assert shop.exports.list() == [] and list(shop.home.tmp.iterdir()) == []


@pytest.mark.parametrize("name", ["comfyui", "kohya"])
def test_an_adapter_file_is_proved(shop: Shop, state: AdapterState, name: str) -> None:
    export = shop.exports.export("dog-1", name)
    assert export.size == export.path.stat().st_size
    assert export.sha256 == hashlib.sha256(export.path.read_bytes()).hexdigest()
    assert all(v.ok and v.worst < 1e-6 for v in export.verdicts if v.must) and export.verdicts
    assert load_adapter(export.path).layers.keys() == state.layers.keys()


def test_a_plain_lora_tells_what_it_leaves_out(shop: Shop) -> None:
    export = shop.exports.export("dog-1", "lora", rank=4)
    assert "of rank 4" in export.note and "left out" in export.note and "raise the rank" in export.note


def test_a_reader_that_misplaces_blocks_is_told_and_its_layers_add_up(shop: Shop) -> None:
    verdicts = {verdict.reader: verdict for verdict in shop.exports.export("dog-1", "lora").verdicts}
    assert verdicts["comfyui"].ok and verdicts["forge"].ok and not verdicts["a1111"].ok
    words = verdicts["a1111"].words
    assert "it counts blocks as the published models do" in words
    right, expected = map(int, re.match(r"(\d+) of (\d+) layers right", words).groups())  # type: ignore[union-attr]
    wrong = [int(count) for count in re.findall(r"(\d+) (?:read wrong|not read)", words)]
    assert right + sum(wrong) == expected and wrong


def test_a_folder_comes_as_one_zip(shop: Shop, tmp_path: Path) -> None:
    export = shop.exports.export("dog-1", "merged", "fp16", strength=0.5)
    assert export.path.suffix == ".zip" and [path.name for path in export.path.parent.iterdir()] == [export.path.name]
    with zipfile.ZipFile(export.path) as archive:
        assert {one.compress_type for one in archive.infolist()} == {zipfile.ZIP_STORED}
        archive.extractall(tmp_path)
    (folder,) = tmp_path.iterdir()
    (verdict,) = export.verdicts
    assert verdict.ok and 0 < verdict.worst < 2**-11
    merged = load_base(str(folder)).unet.state_dict()
    base = load_base("toybox").unet.state_dict()
    changed = [name for name in base if not torch.equal(merged[name], base[name].half().float())]
    assert changed and len(changed) < len(base)


def test_one_merged_file_says_who_will_not_load_it(shop: Shop) -> None:
    export = shop.exports.export("dog-1", "merged_checkpoint")
    assert export.path.suffix == ".safetensors" and export.verdicts[0].ok
    assert "toybox is smaller than the published models" in export.note and "--" not in export.note


def test_an_export_that_is_not_what_it_should_be_is_refused(
    shop: Shop, state: AdapterState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process, where a merge can be made to go wrong."""
    from dora_diffusion.studio.tasks import exporting
    from dora_diffusion.studio.tasks.desk import Desk

    def wrong(config):  # type: ignore[no-untyped-def]
        return merge(config.model_copy(update={"strength": 0.9}))

    merge = exporting.merge
    monkeypatch.setattr(exporting, "merge", wrong)
    arguments = {"base": "toybox", "precision": "fp32", "strength": 1.0, "rank": None, "stem": "x"}
    for name in ("merged", "merged_checkpoint"):
        (tmp_path / name).mkdir()
        with pytest.raises(Exception, match="merged model is off by"):
            exporting.export(
                Desk(), adapter=str(shop.adapters["dog-1"]), format=name, folder=str(tmp_path / name), **arguments
            )
