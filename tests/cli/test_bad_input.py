"""Bad input, through the command line: status 2, a line or two of plain words, and nothing half written."""

import errno
import json
import os
import re
import shutil
import struct
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from moved import moved_state
from PIL import Image
from safetensors.torch import load_file, save_file

from dora_diffusion.cli import main
from dora_diffusion.formats import WEIGHTS_NAME, read_safetensors, write_safetensors
from dora_diffusion.models.load import resolve
from dora_diffusion.registry import FORMATS

TOYBOX = Path(resolve("toybox"))
PHOTOS = Path(__file__).parents[2] / "samples" / "subjects" / "teapot"
SIZE = ("--num_images", "1", "--num_inference_steps", "1", "--height", "64", "--width", "64")
LAYER = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_k"

Refuse = Callable[..., str]


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Every path below ``folder``, with the bytes of files."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in; the outputs' default folders lie in it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def refuse(here: Path, own_home: Path, capsys: pytest.CaptureFixture[str]) -> Refuse:
    """Run a command that must be refused; returns what it said."""

    def run(*arguments: object) -> str:
        before = snapshot(here), snapshot(own_home)
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        assert status == 2, said.err
        assert (snapshot(here), snapshot(own_home)) == before
        assert said.out == "" and said.err.startswith(f"dora-diffusion {arguments[0]}: ")
        assert said.err.count("\n") in (1, 2) and said.err.endswith("\n")
        assert not re.search(r"Traceback|Error\b|----|│|fault of the program", said.err)
        return said.err

    return run


@pytest.fixture
def train(refuse: Refuse) -> Refuse:
    """``refuse`` for ``train`` with everything right but what is given."""

    def run(*arguments: object) -> str:
        right = ("--class_noun", "teapot", "--instance_data_dir", PHOTOS, "--output_dir", "out")
        return refuse("train", *right, *arguments)

    return run


@pytest.fixture(scope="session")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a DoRA that looks trained, made for toybox."""
    folder = tmp_path_factory.mktemp("adapter") / "run"
    FORMATS.load("diffusers").write(moved_state("dora"), folder / WEIGHTS_NAME)
    return folder


def png_header(width: int, height: int) -> bytes:
    """A PNG file that says how large it is, and holds no pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_no_photos(train: Refuse, refuse: Refuse, here: Path) -> None:
    (here / "empty").mkdir()
    (here / "photos").mkdir()
    assert "No photos in empty: it holds nothing" in train("--instance_data_dir", "empty")
    assert "The folder photoss does not exist. Did you mean 'photos'?" in train("--instance_data_dir", "photoss")
    assert "Which photos? Give --instance_data_dir" in refuse("train", "--class_noun", "teapot")
    assert "No photos in empty" in refuse("doctor", "--instance_data_dir", "empty")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        (
            "cut.jpg",
            lambda: (PHOTOS / "table.jpg").read_bytes()[:900],
            "cut.jpg is damaged and cannot be read: it ends",
        ),
        ("notes.jpg", lambda: b"these are notes", "notes.jpg is not a photo that can be read: it is text"),
        ("huge.png", lambda: png_header(20000, 10000), "huge.png has 200 megapixels"),
        ("nothing.png", lambda: b"", "nothing.png is not a photo that can be read: it is empty"),
    ],
)
def test_a_photo_that_cannot_be_used(
    train: Refuse, here: Path, name: str, content: Callable[[], bytes], told: str
) -> None:
    shutil.copytree(PHOTOS, here / "photos")
    (here / "photos" / name).write_bytes(content())
    assert told in train("--instance_data_dir", "photos")


def test_nothing_says_what_the_subject_is(refuse: Refuse, train: Refuse) -> None:
    assert "What is the subject? Give --class_noun" in refuse("train", "--instance_data_dir", PHOTOS)
    prior = ("--class_noun=", "--instance_prompt", "a photo of sks", "--with_prior_preservation")
    assert "Prior preservation needs --class_noun" in train(*prior)


def hollow_model(folder: Path, **index: object) -> Path:
    """A copy of toybox's JSON files without its weights, with some entries of the index changed."""
    for path in TOYBOX.rglob("*.json"):
        target = folder / path.relative_to(TOYBOX)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    entries = json.loads((folder / "model_index.json").read_text()) | index
    (folder / "model_index.json").write_text(json.dumps({k: v for k, v in entries.items() if v != "dropped"}))
    return folder


@pytest.mark.parametrize(
    ("index", "told"),
    [
        ({"text_encoder": "dropped"}, "has no text encoder (its model_index.json lists none)"),
        ({"text_encoder": [None, None]}, "has no text encoder"),
        ({"_class_name": "KandinskyPipeline"}, "is a KandinskyPipeline. Supported families: sd1, sd2, sdxl."),
        ({"_class_name": "StableDiffusionXLImg2ImgPipeline"}, "is SDXL's refiner"),
        ({"_class_name": "StableDiffusionXLPipeline"}, "has no text encoder 2"),
        ({}, "has no UNet weights"),
    ],
)
def test_a_model_that_cannot_be_used(train: Refuse, here: Path, index: dict[str, object], told: str) -> None:
    assert told in train("--pretrained_model_name_or_path", hollow_model(here / "model", **index))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("photos", "photos is no model folder: model_index.json is missing"),
        ("no-such-folder", "is neither a folder on this machine nor a hub name"),
        ("owner/model", "is no folder here, and the hub cannot be reached"),
        ("", "must have at least 1 character, got ''"),
    ],
)
def test_a_name_that_is_no_model(train: Refuse, here: Path, name: str, told: str) -> None:
    (here / "photos").mkdir()
    assert told in train(f"--pretrained_model_name_or_path={name}")


def test_a_checkpoint_file_that_cannot_be_used(train: Refuse, here: Path) -> None:
    (here / "model.ckpt").write_bytes(b"cos\nsystem\n(S'touch hacked'\ntR.")
    assert "is a pickle (.ckpt), which can run any code" in train(
        "--pretrained_model_name_or_path", here / "model.ckpt"
    )
    # Allowed, it is still read as plain tensors only.
    told = train("--pretrained_model_name_or_path", here / "model.ckpt", "--allow_pickle")
    assert "model.ckpt is damaged, or holds objects besides tensors" in told and not (here / "hacked").exists()
    (here / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    assert "is no whole checkpoint file" in train("--pretrained_model_name_or_path", here / "model.safetensors")


def test_a_rescaled_schedule_needs_a_model_that_predicts_v(train: Refuse) -> None:
    told = train("--rescale_betas_zero_snr", "--prediction_type", "epsilon")
    assert "cannot train a model that predicts the noise (epsilon)" in told and "--prediction_type v_prediction" in told


def test_a_base_of_pickles(train: Refuse, here: Path) -> None:
    model = hollow_model(here / "model")
    (model / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch hacked'\ntR.")
    told = train("--pretrained_model_name_or_path", model)
    assert "only has .bin weights" in told and "pass --allow_pickle" in told


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--rank", "0"], "rank must be greater than or equal to 1, got 0"),
        (["--rank_pattern", "attn1=100000"], "attn1.to_q rank 100000; the layer allows 1 to 160"),
        (["--rank_pattern", "attn1=1.5"], "rank 1.5; the layer allows 1 to 160"),
        (["--alpha_pattern", "attn1=0"], "the number above 0, got 'attn1=0'"),
        (["--rank_pattern", "nothing=4"], "rank_pattern 'nothing' matches none of the 56 adapted layers"),
        (["--targets", "nothing"], "The target 'nothing' matches none of the 119 layers of unet"),
        (["--targets", "to_("], "'to_(' is not a valid regex: missing )"),
        (["--rank_pattern", "(=4"], "'(' is not a valid regex"),
        (["--train_text_encoder", "--text_encoder_targets", "x{2"], "matches none of the 24 layers of text_encoder"),
        (["--report_to", "papyrus"], "report_to knows tensorboard, wandb, trackio and none, got 'papyrus'"),
    ],
)
def test_settings_that_the_model_cannot_have(train: Refuse, arguments: list[str], told: str) -> None:
    assert told in train(*arguments)


def test_an_unknown_key_in_the_yaml(refuse: Refuse, here: Path) -> None:
    (here / "run.yaml").write_text("adapter:\n  rnak: 4\n")
    told = refuse("train", "run.yaml", "--output_dir", "out")
    assert "run.yaml: Unknown setting 'adapter.rnak'. Did you mean 'rank'?" in told
    assert "other.yaml cannot be read: No such file or directory" in refuse("train", "other.yaml")


def changed_file(adapter: Path, target: Path, parts: dict[str, torch.Tensor | None], **metadata: str) -> Path:
    """The adapter's file with tensors of ``LAYER`` replaced, or dropped (None), and other metadata of ours."""
    tensors, header = read_safetensors(adapter / WEIGHTS_NAME)
    for part, tensor in parts.items():
        del tensors[f"{LAYER}.{part}.weight"]
        if tensor is not None:
            tensors[f"{LAYER}.{part}.weight"] = tensor
    ours = {f"dora_diffusion.{name}": value for name, value in metadata.items()}
    write_safetensors(target, tensors, {**header, **ours})
    return target


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        (
            {"lora_B": torch.full((160, 8), torch.nan)},
            f"holds values that are not finite, first in {LAYER}.lora_B.weight",
        ),
        ({"lora_B": None}, f"{LAYER} has a lora_A and no lora_B"),
        ({"lora_B": torch.ones(160, 7)}, "factors of shapes [8, 160] and [160, 7], which do not multiply"),
        ({"lora_B": torch.tensor(1.0)}, "factors of shapes [8, 160] and [], which do not multiply"),
        ({"lora_A": torch.ones(8, 160, 1, 1), "lora_B": torch.ones(160, 8, 3, 3)}, "which do not multiply"),
        ({"lora_magnitude_vector": None}, "mixes layers with and without a magnitude"),
        ({"lora_magnitude_vector": torch.ones(3)}, "has 160 rows and a magnitude of 3"),
    ],
)
def test_an_adapter_file_with_a_broken_layer(
    refuse: Refuse, adapter: Path, here: Path, parts: dict[str, torch.Tensor | None], told: str
) -> None:
    path = changed_file(adapter, here / "a.safetensors", parts)
    assert told in refuse("inspect", path)
    assert told in refuse("generate", "--adapter", path, *SIZE)


@pytest.mark.parametrize("text", ["{bad", "[1]", '{"a": 1}', '{"a": ["x"]}'])
def test_an_adapter_file_with_a_broken_fingerprint(refuse: Refuse, adapter: Path, here: Path, text: str) -> None:
    path = changed_file(adapter, here / "a.safetensors", {}, fingerprint=text)
    assert "a fingerprint of its base that cannot be read" in refuse("inspect", path)


def test_a_file_that_is_no_adapter(refuse: Refuse, adapter: Path, here: Path) -> None:
    whole = (adapter / WEIGHTS_NAME).read_bytes()
    (here / "cut.safetensors").write_bytes(whole[:-100])
    save_file({"model.weight": torch.ones(2)}, here / "model.safetensors")
    (here / "run" / "checkpoint-5").mkdir(parents=True)
    (here / "empty").mkdir()
    (here / "killed" / "final-5").mkdir(parents=True)  # its last checkpoint was written, its adapter was not
    for name in ("a.pt", "a.ckpt", "a.bin"):
        (here / name).write_bytes(whole)
        assert f"{name} is a pickle" in refuse("inspect", name)
        assert f"{name} is a pickle" in refuse("export", "--adapter", name, "--output", "b.safetensors")
    cases = {
        "cut.safetensors": "cut.safetensors is no whole safetensors file",
        "model.safetensors": "is no adapter that can be read here (first key: model.weight)",
        "nothing": "There is no adapter at nothing",
        "run": "The run in run has not finished",
        "killed": "The run in killed has not finished",
        "run/checkpoint-5": "is a checkpoint, from which a run goes on, and no adapter yet. Give the run's folder: run",
        "empty": "holds no adapter: pytorch_lora_weights.safetensors is missing",
    }
    for path, told in cases.items():
        assert told in refuse("inspect", path)
        assert told in refuse("merge", "--adapter", path, "--output_dir", "out")
        assert told in refuse("generate", "--adapter", path, *SIZE)
    assert "Which file?" in refuse("inspect")


def test_an_adapter_of_other_layers_or_shapes(refuse: Refuse, adapter: Path, here: Path) -> None:
    path = here / "shape.safetensors"
    changed_file(adapter, path, {"lora_B": torch.ones(5, 8), "lora_magnitude_vector": torch.ones(5)})
    for mode in ("merged", "live"):
        told = refuse("generate", "--adapter", path, "--mode", mode, *SIZE)
        assert f"does not fit this base: {LAYER} is [160, 160] here and 5x160 in the adapter" in told
        assert "made for toybox" in told
    tensors, header = read_safetensors(adapter / WEIGHTS_NAME)
    renamed = {key.replace("down_blocks.0", "down_blocks.9"): tensor for key, tensor in tensors.items()}
    write_safetensors(here / "names.safetensors", renamed, header)
    assert "layers are not in this base, first" in refuse(
        "merge", "--adapter", "names.safetensors", "--output_dir", "m"
    )


@pytest.fixture(scope="session")
def louder_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Toybox with the weights of its UNet doubled."""
    folder = Path(shutil.copytree(TOYBOX, tmp_path_factory.mktemp("louder") / "model"))
    for path in (folder / "unet").glob("*.safetensors"):
        doubled = {name: tensor * 2 for name, tensor in load_file(path).items()}
        path.unlink()
        save_file(doubled, path, {"format": "pt"})
    return folder


@pytest.mark.parametrize("mode", ["merged", "live"])
def test_an_adapter_on_another_base_warns_and_names_both(
    adapter: Path, louder_base: Path, here: Path, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    arguments = ["generate", "--adapter", str(adapter), "--mode", mode, *SIZE]
    assert main(arguments) == 0
    assert not [record for record in caplog.records if record.name.startswith("dora_diffusion")]
    assert main([*arguments, "--pretrained_model_name_or_path", str(louder_base)]) == 0
    (warning,) = [record.getMessage() for record in caplog.records if record.name.startswith("dora_diffusion")]
    assert f"was trained on toybox, and is being used on {louder_base}, whose weights differ in 56 of 72" in warning
    assert sorted(path.name for path in (here / "outputs").iterdir()) == ["00000.png", "00001.png"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--height", "100"], "height must be a multiple of 8, got 100"),
        (["--width", "60"], "width must be a multiple of 8, got 60"),
        (["--strength", "5"], "strength must be less than or equal to 3, got 5.0"),
        (["--strength=-3"], "strength must be greater than or equal to -2, got -3.0"),
        (["--sampler", "eulr"], "Unknown sampler 'eulr'; known: ddim, euler, dpmpp_2m, unipc. Did you mean 'euler'?"),
    ],
)
def test_pictures_that_cannot_be_drawn(refuse: Refuse, adapter: Path, arguments: list[str], told: str) -> None:
    assert told in refuse("generate", "--adapter", adapter, *SIZE, *arguments)


def somebody_elses(folder: Path) -> None:
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")


def test_merge_export_and_demo_refuse(refuse: Refuse, adapter: Path, here: Path) -> None:
    somebody_elses(here / "mine")
    assert "mine is not empty and holds no merged" in refuse("merge", "--adapter", adapter, "--output_dir", "mine")
    assert "strength must be" in refuse("merge", "--adapter", adapter, "--strength", "9")
    assert "Which adapter?" in refuse("merge")
    assert "The output is a .safetensors file, got a.bin" in refuse("export", "--adapter", adapter, "--output", "a.bin")
    (here / "theirs.safetensors").write_bytes(b"years of work")
    there = ("--adapter", adapter, "--output", "theirs.safetensors")
    assert "theirs.safetensors is there and is no export of ours; give another --output." in refuse("export", *there)
    assert (here / "theirs.safetensors").read_bytes() == b"years of work"
    assert "Unknown export format 'kohyaa'" in refuse("export", "--adapter", adapter, "--format", "kohyaa")
    assert "Which adapter?" in refuse("export")
    assert "There is no sample subject 'teapto'; known: backpack" in refuse("demo", "--subject", "teapto")


def test_a_folder_that_is_not_ours(train: Refuse, here: Path) -> None:
    somebody_elses(here / "mine")
    assert "mine is not empty and holds no run of ours (it has thesis.txt)" in train("--output_dir", "mine")
    assert "mine is not empty" in train("--output_dir", "mine", "--overwrite")


@pytest.mark.parametrize("place", ["file", "file/inside", "/proc/no/such/place"])
def test_an_output_that_cannot_be_written(refuse: Refuse, train: Refuse, adapter: Path, here: Path, place: str) -> None:
    (here / "file").write_text("not a folder")
    assert f"Cannot write to {place}: " in train("--output_dir", place)
    assert f"Cannot write to {place}: " in refuse("generate", "--adapter", adapter, "--output_dir", place, *SIZE)
    assert f"Cannot write to {place}: " in refuse("merge", "--adapter", adapter, "--output_dir", place)
    file = f"{place}/a.safetensors"
    assert f"{file} cannot be written: " in refuse("export", "--adapter", adapter, "--output", file)
    assert f"Cannot write to {place}/run: " in refuse("demo", "--output_dir", place)


def fail_with(number: int) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), "out")

    return fail


def test_a_read_only_folder(refuse: Refuse, train: Refuse, adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Tests may run as root, whom permission bits do not stop; a read-only disk stops everybody, in this very call.
    monkeypatch.setattr(tempfile, "mkdtemp", fail_with(errno.EROFS))
    told = "Cannot write to out: read-only file system. Choose another folder"
    assert told in train()
    assert told in refuse("generate", "--adapter", adapter, "--output_dir", "out", *SIZE)
    assert told in refuse("merge", "--adapter", adapter, "--output_dir", "out")


def test_a_full_disk(refuse: Refuse, adapter: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["export", "--adapter", str(adapter), "--output", "a.safetensors"]) == 0  # an old one, which must stay
    monkeypatch.setattr(os, "fsync", fail_with(errno.ENOSPC))
    monkeypatch.setattr(Image.Image, "save", fail_with(errno.ENOSPC))
    told = refuse("export", "--adapter", adapter, "--output", "a.safetensors")
    assert "a.safetensors cannot be written: No space left on device. Free some space" in told
    (here / "outputs").mkdir()
    assert main(["generate", "--adapter", str(adapter), *SIZE]) == 2
    assert list((here / "outputs").iterdir()) == []


def test_a_disk_that_fills_up_costs_no_checkpoint(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ("--class_noun", "teapot", "--instance_data_dir", str(PHOTOS), "--resolution", "64", "--rank", "2")
    steps = ("--max_train_steps", "2", "--checkpointing_steps", "1", "--output_dir", "out")
    flush = os.fsync

    def fill_up(handle: int) -> None:
        if (here / "out" / ".checkpoint-2.writing").exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fill_up)
        assert main(["train", *settings, *steps]) == 2
    said = capsys.readouterr().err
    assert "No space left on device" in said.splitlines()[-1] and "Traceback" not in said
    names = {path.name for path in (here / "out").iterdir()}
    assert names == {"config.yaml", "metrics.jsonl", "status.json", "checkpoint-1"}
    state = json.loads((here / "out" / "status.json").read_text())
    assert state["state"] == "failed" and "No space left on device" in state["message"]
    assert main(["train", *settings, *steps]) == 0
    assert "Resuming from checkpoint-1" in capsys.readouterr().err
    assert (here / "out" / WEIGHTS_NAME).is_file() and not list((here / "out").glob(".*"))
