"""The gate and the blind spots come from the report of the eye's acceptance."""

import json
from pathlib import Path

import pytest

from dora_diffusion.evaluation.eye_facts import DEFAULT_GATE, FACTS_FILE, blind_to, gate_of, is_accepted
from dora_diffusion.toybox.recipe.eye_acceptance import write_report


def report(folder: Path, content: object) -> Path:
    (folder / FACTS_FILE).write_text(json.dumps(content))
    return folder


def test_what_the_acceptance_wrote(tmp_path: Path) -> None:
    folder = report(tmp_path, {"gate": {"threshold": 0.31}, "blind": ["a twin that differs in shape: AUC 0.80"]})
    assert gate_of(folder) == 0.31 and is_accepted(folder)
    assert blind_to(folder) == ("a twin that differs in shape: AUC 0.80",)


def test_it_is_looked_for_where_the_acceptance_writes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dora_diffusion.toybox.recipe.eye_acceptance.table", lambda figures: "")
    write_report({"gate": {"threshold": 0.2}}, tmp_path)
    assert gate_of(tmp_path) == 0.2


@pytest.mark.parametrize("content", [[], {}, {"gate": 1}, {"gate": {"threshold": "high"}, "blind": "shape"}])
def test_without_a_sound_report_the_gate_is_a_guess(tmp_path: Path, content: object) -> None:
    folder = report(tmp_path, content)
    assert gate_of(folder) == DEFAULT_GATE and blind_to(folder) == ()
    assert gate_of(tmp_path / "nowhere") == DEFAULT_GATE and not is_accepted(tmp_path / "nowhere")


def test_by_default_beside_the_eye_that_comes_with_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dora_diffusion.toybox.eye.DEFAULT_FOLDER", report(tmp_path, {"gate": {"threshold": 0.4}}))
    assert gate_of() == 0.4
