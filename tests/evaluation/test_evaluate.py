"""The whole way: an adapter of the embedded base, its photos, pictures, a report. The eye is a stand-in."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from moved import moved_state
from painted import ReadingEye
from PIL import Image
from torch import Tensor

from dora_diffusion.cli import main
from dora_diffusion.config import DataConfig, EvaluateConfig, RunConfig, TrainConfig
from dora_diffusion.config.files import dump_yaml
from dora_diffusion.errors import DoraError
from dora_diffusion.evaluation import evaluate
from dora_diffusion.evaluation.evaluate import REPORT, SHEET
from dora_diffusion.evaluation.figures import FIGURES
from dora_diffusion.evaluation.taught import subject_words, taught
from dora_diffusion.formats import WEIGHTS_NAME
from dora_diffusion.formats.diffusers_format import DIFFUSERS
from dora_diffusion.toybox.eye import Seen

QUICK = {"num_images": 1, "num_drift_images": 0, "num_inference_steps": 1, "sample_batch_size": 8, "cpu": True}


class EyeOfLight(ReadingEye):
    """Tells pictures of light scenes from dark ones: the photos all lie on one side, the base's pictures on both."""

    def see(self, images: torch.Tensor) -> Seen:
        seen = super().see(images)
        angle = images.mean((1, 2, 3)) * 3
        classes = torch.zeros(len(images), seen.class_logits.shape[1])
        classes[:, 1] = 10  # teapot
        return seen._replace(embedding=torch.stack([angle.cos(), angle.sin()], 1), class_logits=classes)


def write_run(folder: Path, photos: Path | None, base: str = "toybox", **metadata: str) -> Path:
    """A run folder with an adapter that looks trained."""
    state = moved_state("dora")
    state = replace(state, base_name=base, metadata={**state.metadata, "class_noun": "teapot", **metadata})
    DIFFUSERS.write(state, folder / WEIGHTS_NAME)
    config = TrainConfig(
        data=DataConfig(instance_data_dir=photos, class_noun="teapot"), run=RunConfig(output_dir=folder)
    )
    (folder / "config.yaml").write_text(dump_yaml(config))
    return folder


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    return write_run(tmp_path_factory.mktemp("run"), repository / "samples" / "subjects" / "teapot")


@pytest.fixture
def eye(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in is the eye, and pictures are asked for in two scenes, which saves time."""
    module = sys.modules["dora_diffusion.evaluation.evaluate"]
    monkeypatch.setattr(module, "load_eye", EyeOfLight)
    monkeypatch.setattr(module, "prompt_scenes", lambda shown: ("beach", "moon"))


def test_a_report_and_a_sheet(run_folder: Path, tmp_path: Path, eye: None) -> None:
    turns: list[tuple[int, int]] = []
    config = EvaluateConfig(adapter=run_folder, output_dir=tmp_path / "out", **QUICK)
    found = evaluate(config, lambda done, total: turns.append((done, total)))
    assert (found.subject, found.kind) == ("sks teapot", "teapot")
    assert found.figures.keys() >= {"scene", "kind", "style", "kind_against_base"}
    assert len(found.pictures) == 2 and found.figures["kind"].value == 1
    assert found.description.endswith(" teapot") and "the eye sees it" in found.description_of
    assert turns[-1] == (14, 14) and [done for done, _ in turns] == sorted(done for done, _ in turns)
    written = json.loads((tmp_path / "out" / REPORT).read_text())
    assert written == json.loads(json.dumps(found.to_json()))
    assert written["settings"]["num_images"] == 1 and written["near_copies"] == 0
    assert written["settings"]["guidance_scale"] == 3.0  # what was drawn with, not that it was left out
    assert Image.open(tmp_path / "out" / SHEET).width > 400
    assert {path.name for path in (tmp_path / "out").iterdir()} == {REPORT, SHEET}


def test_what_is_drawn_is_told_before_it_is(run_folder: Path, eye: None, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    drawn: list[tuple[int, str, int]] = []
    module = sys.modules["dora_diffusion.evaluation.evaluate"]
    draw = module.draw_tensor

    def watched(base: object, prompts: list[str], *how: object) -> Tensor:
        drawn.append((len(told), prompts[0], len(prompts)))
        return draw(base, prompts, *how)

    monkeypatch.setattr(module, "draw_tensor", watched)
    evaluate(EvaluateConfig(adapter=run_folder, description="blue teapot", **QUICK), on_group=told.append)
    assert [place for place, _, _ in drawn] == list(range(1, len(drawn) + 1)) and len(told) == len(drawn) >= 5
    for line, (_, prompt, count) in zip(told, drawn, strict=True):
        assert line.startswith(f"{count} pictures of ") and repr(prompt) in line
    assert told[0] == "2 pictures of the class, without the adapter: 'a photo of a teapot on the beach' ..."
    assert "2 pictures of the subject: 'a photo of sks teapot on the beach' ..." in told


def test_memory_that_does_not_suffice_is_told(
    run_folder: Path, eye: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(sys.modules["dora_diffusion.evaluation.evaluate"], "draw_tensor", full)
    assert main(["evaluate", "--adapter", str(run_folder), "--cpu"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "dora-diffusion evaluate: Out of memory while drawing. What helps: a --sample_batch_size below 4 (the same "
        "pictures); ending other programs that use this memory."
    )


def test_strength_zero_is_the_base(run_folder: Path, eye: None) -> None:
    """Without the adapter nothing leaks, and no class is drawn otherwise, whatever the eye thinks of it."""
    found = evaluate(EvaluateConfig(adapter=run_folder, strength=0, **QUICK))
    assert found.figures["kind_against_base"].value == 0
    assert found.cosines["bare"] == found.cosines["base_bare"]


def test_the_held_out_photos_are_the_ceiling(run_folder: Path, repository: Path, eye: None) -> None:
    held_out = repository / "samples" / "subjects" / "robot"
    config = EvaluateConfig(adapter=run_folder, held_out_data_dir=held_out, description="blue teapot", **QUICK)
    found = evaluate(config)
    assert found.ceiling_of == "held-out photos" and not any("held out" in note for note in found.notes)
    assert found.description == "blue teapot" and found.description_of == "as given"
    without = evaluate(EvaluateConfig(adapter=run_folder, **QUICK))
    assert any("No photos were held out" in note for note in without.notes)
    assert without.cosines["ceiling"] != found.cosines["ceiling"]


def test_the_same_twice(run_folder: Path, eye: None) -> None:
    config = EvaluateConfig(adapter=run_folder / WEIGHTS_NAME, **QUICK)
    assert evaluate(config).to_json() == evaluate(config).to_json()


def test_the_command_prints_a_table_or_json(
    run_folder: Path, eye: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = {"gate": {"threshold": 0.25}, "blind": ["a twin of another shape: AUC 0.7"]}
    monkeypatch.setattr(sys.modules["dora_diffusion.evaluation.eye_facts"], "_facts", lambda folder: facts)
    flags = [f"--{name}={value}" for name, value in QUICK.items() if name != "cpu"]
    assert main(["evaluate", "--adapter", str(run_folder), "--cpu", "--json", *flags]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["kind"] == "teapot" and document["gate"] == 0.25 and len(document["pictures"]) == 2
    assert main(["evaluate", "--adapter", str(run_folder), "--cpu", *flags]) == 0
    text = capsys.readouterr().out
    assert "sks teapot (class teapot)" in text and FIGURES["scene"].label in text
    assert "What the eye is blind to:\n  a twin of another shape: AUC 0.7" in text and "Raw cosines" in text
    assert "Near-copies of a training photo: 0 of 2" in text


def test_the_subjects_words() -> None:
    state = moved_state("dora")
    for prompt, words in [
        ("a photo of sks teapot", "sks teapot"),
        ("a picture of zwx toy teapot", "zwx toy teapot"),
        ("sks teapot", "sks teapot"),
        ("", "sks teapot"),
    ]:
        told = replace(state, metadata={"instance_prompt": prompt})
        assert subject_words(told, "teapot") == words


@pytest.fixture
def refuse(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the command on bad input; returns what it said, which is two lines at most."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> str:
        assert main(["evaluate", *(str(argument) for argument in arguments)]) == 2
        said = capsys.readouterr()
        assert said.out == "" and said.err.startswith("dora-diffusion evaluate: ") and said.err.count("\n") <= 2
        assert not re.search(r"Traceback|Error\b", said.err)
        return said.err

    return run


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong is found before anything heavy is loaded."""

    def never(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded")

    module = sys.modules["dora_diffusion.evaluation.evaluate"]
    monkeypatch.setattr(module, "load_eye", never)
    monkeypatch.setattr(module, "MergedPipeline", never)


def test_bad_input(refuse: Any, tmp_path: Path, repository: Path, no_model: None) -> None:
    photos = repository / "samples" / "subjects" / "teapot"
    assert "Which adapter?" in refuse()
    assert "There is no adapter at nothing" in refuse("--adapter", "nothing")
    other = write_run(tmp_path / "other", photos, base="runwayml/stable-diffusion-v1-5")
    told = refuse("--adapter", other)
    assert "trained on runwayml/stable-diffusion-v1-5" in told and "only adapters of the embedded base" in told
    dog = write_run(tmp_path / "dog", photos, class_noun="tepot")
    assert "does not know the class 'tepot'" in refuse("--adapter", dog) and "mug, teapot" in refuse("--adapter", dog)
    moved = write_run(tmp_path / "moved", tmp_path / "gone")
    assert "which is no folder here. Give --instance_data_dir" in refuse("--adapter", moved)
    assert "No photos in" in refuse("--adapter", moved, "--instance_data_dir", tmp_path)
    run = write_run(tmp_path / "run", photos)
    assert "does not exist" in refuse("--adapter", run, "--held_out_data_dir", "no-such-folder")
    assert "num_images must be" in refuse("--adapter", run, "--num_images", 0)
    (tmp_path / "file").write_text("")
    assert "Cannot write to file" in refuse("--adapter", run, "--output_dir", "file")
    (run / "config.yaml").unlink()
    assert "Which photos was it taught with? Give --instance_data_dir" in refuse("--adapter", run)
    unnamed = write_run(tmp_path / "unnamed", photos, class_noun="")
    (unnamed / "config.yaml").unlink()
    assert "does not say what class its subject is" in refuse("--adapter", unnamed, "--instance_data_dir", photos)
    named = taught(EvaluateConfig(adapter=unnamed, instance_data_dir=photos, class_noun="mug"))
    assert named.kind == "mug"


def test_the_same_base_under_its_path_is_no_other(tmp_path: Path, repository: Path, eye: None) -> None:
    from dora_diffusion.models import resolve

    run = write_run(tmp_path / "run", repository / "samples" / "subjects" / "teapot", base=resolve("toybox"))
    assert evaluate(EvaluateConfig(adapter=run, **QUICK)).kind == "teapot"


def test_a_missing_eye(refuse: Any, run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dora_diffusion.toybox.eye.DEFAULT_FOLDER", tmp_path / "no-eye")
    assert "There is no eye in" in refuse("--adapter", run_folder)


def test_one_photo_and_none_held_out_is_too_little(
    run_folder: Path, tmp_path: Path, repository: Path, eye: None
) -> None:
    photo = repository / "samples" / "subjects" / "teapot" / "table.jpg"
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / photo.name).write_bytes(photo.read_bytes())
    with pytest.raises(DoraError, match="two training photos at least"):
        evaluate(EvaluateConfig(adapter=run_folder, instance_data_dir=tmp_path / "one", **QUICK))
