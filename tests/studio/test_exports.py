"""Exports: proved, or not there; and what is said of each format is what the proofs ask."""

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from shop import Shop, fake_workshop

from dora_diffusion.errors import StudioError
from dora_diffusion.formats.verify.promises import further_readers_of, readers_of
from dora_diffusion.registry import FORMATS
from dora_diffusion.studio.export_formats import FORMATS_IN_WORDS, MERGED
from dora_diffusion.studio.exports import plain


@pytest.fixture
def shop(tmp_path: Path):
    adapter = tmp_path / "adapter.safetensors"
    adapter.touch()
    made = Shop(tmp_path / "home", fake_workshop(tmp_path), **{"dog-1": adapter})
    yield made
    made.close()


def test_every_format_is_described_and_its_readers_are_those_it_is_proved_in(shop: Shop) -> None:
    notes = {note.name: note for note in shop.exports.formats()}
    assert set(notes) == {*FORMATS, *MERGED}
    for name in FORMATS:
        told = {reader.lower().replace("-", "_") for reader in notes[name].readers}
        assert set(readers_of(name)) <= told <= {*readers_of(name), *further_readers_of(name)}
    assert all(note.what and note.cannot and note.readers for note in notes.values())
    assert [name for name, note in notes.items() if note.takes_rank] == ["lora"]
    assert {name for name, note in notes.items() if note.takes_strength} == set(MERGED)


def test_a_reader_that_counts_blocks_as_published_does_not_stand_in_a_toybox_subjects_formats(shop: Shop) -> None:
    def readers(*subject: str) -> dict[str, tuple[str, ...]]:
        return {note.name: note.readers for note in shop.exports.formats(*subject)}

    assert "A1111" in readers()["lora"] and "A1111" in readers()["diff"]
    here = readers("dog-1")
    assert not any("A1111" in found for found in here.values()) and here["merged_checkpoint"] == ()
    assert here["lora"][:2] == ("ComfyUI", "Forge") and here["comfyui"] == readers()["comfyui"]
    lora = next(note for note in shop.exports.formats("dog-1") if note.name == "lora")
    assert "On toybox, whose blocks are numbered otherwise, it is not right in A1111." in lora.cannot
    assert FORMATS_IN_WORDS[2].on("my-sd15") is FORMATS_IN_WORDS[2]
    with pytest.raises(StudioError, match="no subject"):
        shop.exports.formats("cat-1")


def test_a_disk_that_takes_no_folder_is_told_in_a_sentence(shop: Shop) -> None:
    shop.home.tmp.rmdir()
    shop.home.tmp.write_text("in the way")
    with pytest.raises(StudioError, match=r"^The export cannot be written: .*\. Free some space\.$"):
        shop.exports.export("dog-1", "comfyui")
    assert shop.exports.list() == []


def test_an_export_is_a_file_and_a_row(shop: Shop) -> None:
    said: list[str] = []
    export = shop.exports.export("dog-1", "comfyui", on_note=said.append)
    assert export.id == "export-1" and export.path.read_bytes() == b"weights" and said == ["Proving."]
    assert export.path == shop.home.media / "exports" / "export-1" / "rex-comfyui.safetensors"  # by its name
    (verdict,) = export.verdicts
    assert verdict.ok and verdict.must and verdict.reader == "comfyui" and verdict.worst == 1e-8
    assert export.note == "Something is left out." and export.seconds > 0
    assert shop.exports.list() == shop.exports.list("dog-1") == [export] == [shop.exports.get("export-1")]
    second = shop.exports.export("dog-1", "merged", "fp16", 0.5)
    assert [one.id for one in shop.exports.list()] == [second.id, export.id]
    shop.exports.delete(export.id)
    assert not export.path.parent.exists() and shop.exports.list() == [second]
    assert list(shop.home.tmp.iterdir()) == []


def test_refused_by_its_proof_nothing_is_left(shop: Shop) -> None:
    with pytest.raises(StudioError, match="^ComfyUI reads other weights. Nothing was written.$"):
        shop.exports.export("dog-1", "comfyui", "bf16")
    assert shop.exports.list() == [] and list(shop.home.tmp.iterdir()) == []
    assert not (shop.home.media / "exports").exists() or not any((shop.home.media / "exports").iterdir())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"format": "comfy"}, "Did you mean 'comfyui'"),
        ({"format": "../x"}, "no export format"),
        ({"precision": "int8"}, "one of fp32, fp16, bf16"),
        ({"format": "merged", "strength": 2}, "between 0 and 1.5"),
        ({"format": "merged", "strength": float("nan")}, "between 0 and 1.5"),
        ({"strength": 0.5}, "carries the adapter as it is"),
        ({"rank": 8}, "how near a plain LoRA comes"),
        ({"format": "lora", "rank": 0}, "from 1 to 512, got 0"),
        ({"format": "lora", "rank": 1.5}, "from 1 to 512"),
        ({"subject_id": "cat-1"}, "no subject"),
        ({"subject_id": "../dog-1"}, "id of a subject"),
        ({"job_id": "job-9"}, "no job"),
        ({"job_id": "job-1", "step": 5}, "no step 5"),
    ],
)
def test_refused_before_any_work(shop: Shop, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(StudioError, match=says):
        shop.exports.export(**{"subject_id": "dog-1", "format": "comfyui", **arguments})
    assert not shop.workshop.is_running


def test_untrained_there_is_nothing_to_export(shop: Shop) -> None:
    shop.adapters["dog-1"] = None
    with pytest.raises(StudioError, match="not trained yet"):
        shop.exports.export("dog-1", "diffusers")


@pytest.mark.parametrize("odd", ["export-9", "export-x", "dog-1", "../1", "export-" + "9" * 60, 1, None])
def test_ids_are_checked(shop: Shop, odd: Any) -> None:
    with pytest.raises(StudioError, match="no export|id of a"):
        shop.exports.get(odd)
    with pytest.raises(StudioError, match="no export|id of a"):
        shop.exports.delete(odd)


def test_stopped_nothing_is_left(shop: Shop) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(StudioError, match="Stopped"):
        shop.exports.export("dog-1", "diffusers", stop=stop)
    assert list(shop.home.tmp.iterdir()) == [] and shop.exports.list() == []


def test_what_a_killed_server_left_is_swept(shop: Shop) -> None:
    old, new = shop.home.tmp / "exporting-old", shop.home.tmp / "exporting-new"
    for folder in (old, new):
        folder.mkdir()
    os.utime(old, (0, time.time() - 2 * 24 * 3600))
    shop.exports.export("dog-1", "diffusers")
    assert not old.exists() and new.exists()


def test_flags_of_a_command_line_are_not_told() -> None:
    assert plain("It is the base; give another --output_dir.") == "It is the base."
    assert plain("wrong: export --format comfyui") == "wrong: export the format comfyui"
