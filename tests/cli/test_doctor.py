"""The doctor tells what is there, as text and as JSON; its exit status tells of photos that cannot be used."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dora_diffusion import machine
from dora_diffusion.cli import doctor
from dora_diffusion.errors import DataError, MachineError

SHARED = Path(__file__).parents[3] / "shared" / "photos" / "cat2"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three good photos, real ones or made here."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(3):
        if SHARED.exists():
            shutil.copyfile(SHARED / f"0{index}.jpg", folder / f"0{index}.jpg")
        else:
            pixels = np.random.default_rng(index).integers(0, 255, (80, 80, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((640, 640), Image.Resampling.NEAREST).save(folder / f"0{index}.jpg")
    return folder


def diagnose(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    status = doctor.run(arguments)
    return status, capsys.readouterr().out


def document(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(diagnose([*arguments, "--as_json"], capsys)[1])


def test_the_machine_is_told_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    status, text = diagnose([], capsys)
    assert status == 0
    for title in ("Machine", "Devices", "Attention", "Versions", "Not installed, and needed by these alone"):
        assert title in text.splitlines()
    assert f"torch{' ' * 10}" in text
    assert str(machine.versions()["torch"]) in text
    assert "sdpa" in text and "works" in text
    assert "Photos" not in text
    assert max(map(len, text.splitlines())) <= 250
    assert "\x1b" not in text


def test_the_values_of_a_table_stand_under_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    lines = diagnose([], capsys)[1].splitlines()
    start = lines.index("Versions") + 1
    rows = lines[start : lines.index("", start)]
    width = max(len(row.split()[0]) for row in rows)
    assert all(row[: width + 4] == f"  {row.split()[0]:<{width}}  " and row[width + 4] != " " for row in rows)


def test_the_machine_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    found = document([], capsys)
    assert found["devices"][-1]["place"] == "cpu"
    assert found["attention"]["sdpa"] == "works"
    assert set(found["attention"]) >= {"sdpa", "xformers"}
    assert found["versions"] == machine.versions()
    assert found["memory"]["total_gib"] > 0 and found["free_disk_gib"] > 0
    assert found["photos"] is None
    assert [gap["feature"] for gap in found["missing"]] == [gap.feature for gap in machine.missing_for()]


def test_good_photos_leave_the_status_at_0(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, text = diagnose(["--instance_data_dir", str(photos)], capsys)
    assert status == 0
    assert f"Photos in {photos}" in text
    assert text.count("good\n") == 3


def test_photos_come_first_and_what_is_optional_last(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = diagnose(["--instance_data_dir", str(photos)], capsys)[1].splitlines()
    titles = [line for line in lines if line and not line.startswith(" ")]
    assert titles[0].startswith("Photos in ") and titles[1:] == [
        *("Machine", "Devices", "Attention", "Versions", "Not installed, and needed by these alone"),
    ]


def test_what_a_broken_gpu_lacks_is_told_before_what_is_optional(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gaps = [machine.Missing("the NVIDIA GPU", "no CUDA", "it"), machine.Missing("X", "x is missing", "x", True)]
    monkeypatch.setattr(machine, "missing_for", lambda: gaps)
    text = diagnose([], capsys)[1]
    needed, optional = text.index("Missing\n  the NVIDIA GPU  no CUDA"), text.index("alone\n  X  x is missing: x")
    assert needed < text.index("Attention") < text.index("Versions") < optional


@pytest.mark.parametrize(
    ("flags", "resolution", "whose"),
    [
        ((), 128, "toybox's own"),
        (("--resolution", "96"), 96, "as asked for"),
        (("--pretrained_model_name_or_path", "FOLDER"), 64, "FOLDER's own"),
        (("--pretrained_model_name_or_path", "owner/kept"), 64, "owner/kept's own"),
        (
            ("--pretrained_model_name_or_path", "owner/other"),
            512,
            "a guess, since nothing here tells that of owner/other; --resolution says another",
        ),
        (
            ("--pretrained_model_name_or_path", "a.safetensors"),
            512,
            "a guess, since nothing here tells that of a.safetensors; --resolution says another",
        ),
    ],
)
def test_photos_are_judged_for_the_base_they_are_for(
    flags: tuple[str, ...],
    resolution: int,
    whose: str,
    tmp_path: Path,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A photo of 100 pixels is small for toybox, large enough for a base of 64, and tiny for SD."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    commit = "a" * 40
    kept = tmp_path / "hub" / "models--owner--kept"
    base = tmp_path / "base"
    for folder in (base, kept / "snapshots" / commit):
        for part, config in (("unet", {"sample_size": 32}), ("vae", {"block_out_channels": [8, 16]})):
            (folder / part).mkdir(parents=True)
            (folder / part / "config.json").write_text(json.dumps(config))
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text(commit)
    with Image.open(photos / "00.jpg") as photo:
        photo.resize((100, 100)).save(photos / "small.jpg")
    given = [flag.replace("FOLDER", str(base)) for flag in flags]
    status, text = diagnose(["--instance_data_dir", str(photos), *given], capsys)
    assert status == 0
    assert f"(for training at {resolution} pixels, {whose.replace('FOLDER', str(base))})" in text
    assert ("small.jpg is 100 x 100 pixels, less than the" in text) is (resolution > 100)


def test_a_warning_leaves_the_status_at_0(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copyfile(photos / "00.jpg", photos / "again.jpg")
    status, text = diagnose(["--instance_data_dir", str(photos)], capsys)
    assert status == 0
    assert "warning: again.jpg is nearly the same picture as 00.jpg" in text


def test_a_photo_that_cannot_be_used_makes_the_status_2(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "list.jpg").write_text("milk, bread")
    arguments = ["--instance_data_dir", str(photos)]
    status, text = diagnose(arguments, capsys)
    assert status == 2
    assert "list.jpg" in text and "cannot be used" in text and "error: list.jpg is not a photo" in text
    status, text = diagnose([*arguments, "--as_json"], capsys)
    assert status == 2
    reports = {Path(report["path"]).name: report for report in json.loads(text)["photos"]["reports"]}
    assert reports["00.jpg"] == {
        "path": str(photos / "00.jpg"),
        "size": [768, 768],
        "usable": True,
        "findings": [],
    } or (not SHARED.exists() and reports["00.jpg"]["usable"])
    assert reports["list.jpg"]["findings"][0]["severity"] == "error"
    assert reports["list.jpg"]["size"] is None


def test_too_few_photos_are_told_of_the_folder(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "00.jpg").unlink()
    found = document(["--instance_data_dir", str(photos)], capsys)["photos"]["findings"]
    assert [finding["code"] for finding in found] == ["few-photos"]


def test_captions_are_counted(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert document(["--instance_data_dir", str(photos)], capsys)["photos"]["findings"] == []
    (photos / "00.txt").write_text("a dog")
    status, text = diagnose(["--instance_data_dir", str(photos)], capsys)
    assert status == 0
    assert "1 of 3 photos have a caption of their own: 1 in .txt files, 2 by the prompt." in text
    (photos / "00.txt").write_bytes(b"")
    status, text = diagnose(["--instance_data_dir", str(photos)], capsys)
    assert status == 0 and "warning: 00.txt holds an empty caption" in text


def test_a_bad_folder_is_an_error_for_the_caller(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        doctor.run(["--instance_data_dir", str(tmp_path / "gone")])


def test_a_broken_torch_is_a_finding(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse() -> list[machine.Device]:
        raise MachineError("The package torch is installed but cannot be imported (libtorch.so).")

    monkeypatch.setattr(machine, "devices", refuse)
    status, text = diagnose([], capsys)
    assert status == 0
    assert "everything" in text and "libtorch.so" in text


@pytest.mark.skipif(os.name != "posix", reason="file names are bytes on POSIX only")
def test_a_name_that_is_no_text_does_not_stop_the_doctor(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copyfile(os.fsencode(photos / "00.jpg"), os.fsencode(photos) + b"/caf\xe9.jpg")
    status, text = diagnose(["--instance_data_dir", str(photos)], capsys)
    assert status == 0
    assert "caf\\udce9.jpg" in text
