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
    for title in ("Machine", "Devices", "Attention", "Versions", "Missing"):
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
