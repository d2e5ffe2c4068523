"""``dora-diffusion verify`` from the outside."""

import json
from pathlib import Path

import pytest
import torch
from moved import moved_state
from PIL import Image
from safetensors.torch import load_file, save_file

from dora_diffusion.cli import main
from dora_diffusion.formats import WEIGHTS_NAME
from dora_diffusion.formats.base_weights import LoadedBase
from dora_diffusion.formats.diffusers_format import DIFFUSERS
from dora_diffusion.models import load_base
from dora_diffusion.registry import FORMATS, READERS


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A run, the same adapter for LyCORIS, and one that lost a layer on the way."""
    place = tmp_path_factory.mktemp("verify")
    state = moved_state("dora")
    DIFFUSERS.write(state, place / "run" / WEIGHTS_NAME)
    FORMATS.load("kohya").write(state, place / "kohya.safetensors", LoadedBase(load_base("toybox")))
    DIFFUSERS.write(moved_state("dora", seed=1), place / "other" / WEIGHTS_NAME)
    tensors = load_file(place / "kohya.safetensors")
    first = next(iter(tensors)).partition(".")[0]
    save_file({key: t for key, t in tensors.items() if not key.startswith(f"{first}.")}, place / "less.safetensors")
    return place


def verify(folder: Path, name: str, *flags: str) -> int:
    return main(["verify", str(folder / name), "--against", str(folder / "run"), *flags])


def test_every_reader_has_its_line(folder: Path, capsys) -> None:
    assert verify(folder, "run") == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "right" in lines["diffusers"] and "72/72" in lines["diffusers"]
    assert "refused" in lines["forge"]
    assert set(READERS) - set(lines) == {"peft"}


def test_the_report_is_short(folder: Path, capsys) -> None:
    """A row and at most one line of two reasons a reader; the rest is in the JSON."""
    assert verify(folder, "kohya.safetensors") == 0
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 1 + 6 + 5 + 1 and out[-1] == "Every layer and every key: --json."
    (comfyui,) = [line for line in out if line.startswith("comfyui: ")]
    assert comfyui.startswith(
        "comfyui: 72 magnitudes are divided by the norms of the base's rows; 72 layers are not right, the worst "
    )
    assert verify(folder, "kohya.safetensors", "--reader", "lycoris") == 0
    assert "--json" not in capsys.readouterr().out, "nothing more is to be told"


def test_one_reader_alone_and_its_verdict_is_the_exit_status(folder: Path, capsys) -> None:
    assert verify(folder, "kohya.safetensors", "--reader", "lycoris") == 0
    assert "comfyui" not in capsys.readouterr().out
    assert verify(folder, "kohya.safetensors", "--reader", "comfyui") == 2
    assert "WRONG" in capsys.readouterr().out


def test_a_lost_layer_is_named(folder: Path, capsys) -> None:
    assert verify(folder, "less.safetensors", "--reader", "lycoris") == 2
    out = capsys.readouterr().out
    assert "71/72" in out and "nothing of it is read" in out


def test_what_a_plain_lora_leaves_out_is_told(folder: Path, capsys) -> None:
    made = [
        "export",
        "--adapter",
        str(folder / "run"),
        "--format",
        "lora",
        "--output",
        str(folder / "lora.safetensors"),
    ]
    assert main(made) == 0
    assert any(line.split()[:2] == ["comfyui", "right"] for line in capsys.readouterr().err.splitlines())
    assert verify(folder, "lora.safetensors", "--reader", "comfyui") == 2
    assert "a plain LoRA found by SVD, which left out" in capsys.readouterr().out


def test_json_is_one_document(folder: Path, capsys) -> None:
    assert verify(folder, "kohya.safetensors", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    right = {one["reader"] for one in document["readers"] if one["right"]}
    assert right == {"lycoris"}
    assert len(document["readers"][0]["layers"]) == 72


def test_another_runs_file_is_not_right(folder: Path, capsys) -> None:
    assert main(["verify", str(folder / "run"), "--against", str(folder / "other"), "--reader", "diffusers"]) == 2
    assert "72/72" in capsys.readouterr().out


def test_the_base_may_be_named_and_must_be_the_runs(folder: Path, tmp_path: Path, capsys) -> None:
    from slim_models import slim_base

    slim_base("sd1").pipe.save_pretrained(tmp_path / "base")
    assert verify(folder, "run", "--pretrained_model_name_or_path", "toybox", "--reader", "diffusers") == 0
    assert verify(folder, "run", "--pretrained_model_name_or_path", str(tmp_path / "base")) == 2
    assert "needs the base the adapter was trained on (toybox)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "Which file? dora-diffusion verify FILE --against RUN."),
        (["--against", "run"], "Which file? dora-diffusion verify FILE --against RUN."),
        (["file.safetensors"], "Against what?"),
        (["file.safetensors", "--against", "run", "--picture"], "name it with --reader"),
        (["file.safetensors", "--against", "run", "--reader", "comfy"], "Did you mean 'comfyui'?"),
        (["no-such-file", "--against", "run"], "There is no adapter at no-such-file"),
    ],
)
def test_what_is_missing_is_asked_for(arguments: list[str], told: str, capsys) -> None:
    assert main(["verify", *arguments]) == 2
    error = capsys.readouterr().err
    assert told in error and "Traceback" not in error


def drawn(folder: Path, out: Path, *flags: str, file: str = "run") -> tuple[Image.Image, dict[str, str]]:
    steps = () if "--num_inference_steps" in flags else ("--num_inference_steps", "2")
    verify(folder, file, "--picture", "--cpu", *steps, "--output_dir", str(out), *flags)
    image = Image.open(next(out.glob("verify_*.png")))
    return image, json.loads(image.info["dora_diffusion"])


def halves(image: Image.Image) -> tuple[bytes, bytes]:
    width = image.width // 2
    left, right = image.crop((0, 0, width, image.height)), image.crop((width, 0, image.width, image.height))
    return left.tobytes(), right.tobytes()


def test_a_pair_of_pictures_is_drawn_and_measured(folder: Path, tmp_path: Path, capsys) -> None:
    image, settings = drawn(folder, tmp_path / "good", "--reader", "diffusers")
    assert image.size == (256, 128) and (settings["psnr"] is None or settings["psnr"] >= 60)
    assert settings["prompt"] == "a photo of sks teapot" and "ours on the left" in capsys.readouterr().out
    bad, lost = drawn(folder, tmp_path / "bad", "--reader", "a1111")
    assert lost["psnr"] < 45 and halves(bad)[0] == halves(image)[0] and halves(bad)[1] != halves(image)[1]


def test_prompt_seed_and_steps_change_the_picture(folder: Path, tmp_path: Path) -> None:
    reader = ("--reader", "diffusers")
    first, _ = drawn(folder, tmp_path / "first", *reader)
    changed = {"prompt": "a red mug", "seed": "5", "num_inference_steps": "3"}
    for name, value in changed.items():
        other, settings = drawn(folder, tmp_path / name, *reader, f"--{name}", value)
        assert halves(other)[0] != halves(first)[0], name
        assert str(settings.get(name, value)) == value


def test_the_picture_stands_in_the_json_too(folder: Path, tmp_path: Path, capsys) -> None:
    drawn(folder, tmp_path, "--reader", "diffusers", "--json")
    document = json.loads(capsys.readouterr().out)
    assert document["picture"]["file"] == str(tmp_path / "verify_diffusers.png")


def test_pictures_are_drawn_where_they_may_be(folder: Path, tmp_path: Path, monkeypatch) -> None:
    asked: list[bool] = []

    def place(cpu: bool, precision: str) -> tuple[torch.device, torch.dtype]:
        asked.append(cpu)
        return torch.device("cpu"), torch.float32

    monkeypatch.setattr("dora_diffusion.inference.place", place)
    drawn(folder, tmp_path, "--reader", "diffusers")
    assert asked == [True]


def test_a_picture_that_is_there_stays(folder: Path, tmp_path: Path, capsys) -> None:
    first, second = tmp_path / "verify_diffusers.png", tmp_path / "verify_diffusers_2.png"
    drawn(folder, tmp_path, "--reader", "diffusers")
    before = first.read_bytes()
    second.write_bytes(b"somebody's own")
    capsys.readouterr()
    drawn(folder, tmp_path, "--reader", "diffusers", "--seed", "7")
    assert first.read_bytes() == before and second.read_bytes() == b"somebody's own"
    assert str(tmp_path / "verify_diffusers_3.png") in capsys.readouterr().out


def test_a_folder_that_cannot_be_written_to_is_told_before_drawing(folder: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "file").write_text("in the way")
    assert verify(folder, "run", "--picture", "--cpu", "--reader", "diffusers", "--output_dir", str(tmp_path / "file"))
    assert "Traceback" not in (told := capsys.readouterr().err) and str(tmp_path / "file") in told
