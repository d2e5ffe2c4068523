"""The benchmark: subjects that can be made again, runs that are not done twice, tables. Nothing is trained here."""

import importlib.util
import json
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from painted import ReadingEye, picture, pictures
from PIL import Image

from dora_diffusion.config import TrainConfig
from dora_diffusion.config.files import load_yaml
from dora_diffusion.data.photos import list_photos
from dora_diffusion.errors import ConfigError
from dora_diffusion.evaluation.measure import GROUPS, Measured, measure
from dora_diffusion.evaluation.prompts import PROMPT_SCENES, plan
from dora_diffusion.toybox.render import Rendered
from dora_diffusion.toybox.words import REFERENCE_SCENES

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench_likeness.py"
SAMPLE = Path(__file__).parents[2] / "samples" / "teapot.yaml"


@pytest.fixture(scope="module")
def loaded() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_likeness", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_likeness"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def bench(loaded: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script with a renderer that paints noise, every toy and view its own."""

    def render(toys, views, size, device):  # type: ignore[no-untyped-def]
        seeds = (views.seed + 1000 * toys.kind).tolist()
        draws = [torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return Rendered(torch.stack(draws), torch.ones(len(draws), 1, 8, 8))

    monkeypatch.setattr(loaded, "render", render)
    return loaded


def given(bench: ModuleType, folder: Path, *flags: str) -> Namespace:
    usual = ["--config", str(SAMPLE), "--output_dir", str(folder), "--cpu", "--subjects", "2", "--num_held_out", "9"]
    return bench._arguments([*usual, *flags])


def measured(likeness: float) -> Measured:
    """A run whose pictures lie ``likeness`` of the way from the floor (a right angle) to the photos."""
    asked = plan("sks mug", "mug", "red mug", num_images=1, num_drift_images=1)
    degrees = {"subject": 90 * (1 - likeness), "base_bare": 90, "bare": 85, "base_worded": 60}
    drawn = {
        group: pictures(
            *(picture(a.kind, a.scene, a.style, degrees.get(group, 0)) for a in getattr(asked, name)),
        )
        for group, (name, _) in GROUPS.items()
    }
    photos = pictures(picture(), picture())
    return measure(drawn, asked, photos, pictures(picture()), ReadingEye(), 0.5)


def test_subjects_are_made_once_and_the_same_again(bench: ModuleType, tmp_path: Path) -> None:
    folders = bench.render_subjects(given(bench, tmp_path / "a"))
    again = bench.render_subjects(given(bench, tmp_path / "b"))
    assert [folder.name for folder in folders] == [folder.name for folder in again] and len(set(folders)) == 2
    for first, second in zip(folders, again, strict=True):
        assert (first / "subject.json").read_text() == (second / "subject.json").read_text()
        names = [path.stem[3:] for path in list_photos(first / "photos")]
        assert names == list(REFERENCE_SCENES)
        held_out = list_photos(first / "held_out")
        assert [path.stem[3:] for path in held_out] == [*PROMPT_SCENES, PROMPT_SCENES[0]]
        assert [path.read_bytes() for path in held_out] == [p.read_bytes() for p in list_photos(second / "held_out")]
    facts = json.loads((folders[0] / "subject.json").read_text())
    assert facts["split"] == "test" and facts["description"].endswith(facts["kind"])
    (folders[0] / "photos" / "00_studio.jpg").unlink()
    bench.render_subjects(given(bench, tmp_path / "a"))
    assert not (folders[0] / "photos" / "00_studio.jpg").exists()


def test_another_split_is_other_toys(bench: ModuleType, tmp_path: Path) -> None:
    (test,) = bench.render_subjects(given(bench, tmp_path / "a", "--subjects", "1"))
    (final,) = bench.render_subjects(given(bench, tmp_path / "b", "--subjects", "1", "--split", "final"))
    assert (test / "subject.json").read_text() != (final / "subject.json").read_text()


def test_a_run_has_the_settings_and_its_own_subject(bench: ModuleType, tmp_path: Path) -> None:
    asked = given(bench, tmp_path, "--config", str(SAMPLE), "--kinds", "lora")
    job = bench._job(tmp_path / "00-mug", "lora", bench.settings_of(asked)["lora"], 3, asked)
    config = bench.training_of(job, "mug")
    assert (config.adapter.kind, config.run.seed, config.data.prompt()) == ("lora", 3, "a photo of sks mug")
    assert config.data.instance_data_dir == tmp_path / "00-mug" / "photos"
    assert config.run.output_dir == tmp_path / "00-mug" / "lora-3" and config.run.validation_prompt == []
    preset = load_yaml(TrainConfig, SAMPLE)
    assert (config.optim, config.prior) == (preset.optim, preset.prior)
    assert config.run.max_train_steps == preset.run.max_train_steps


def test_options_lie_over_the_config(bench: ModuleType, tmp_path: Path) -> None:
    options = tmp_path / "options.yaml"
    options.write_text("default:\nmasks: {data: {mask_data_dir: masks}}\nslow: {optim: {learning_rate: 1.0e-5}}\n")
    asked = given(bench, tmp_path, "--config", str(SAMPLE), "--options", str(options))
    settings = bench.settings_of(asked)
    preset = load_yaml(TrainConfig, SAMPLE)
    assert list(settings) == ["default", "masks", "slow"] and settings["default"] == preset
    assert settings["slow"].optim == preset.optim.model_copy(update={"learning_rate": 1e-5})
    configs = {
        n: bench.training_of(bench._job(tmp_path / "00-mug", n, s, 0, asked), "mug") for n, s in settings.items()
    }
    assert configs["masks"].data.mask_data_dir == tmp_path / "00-mug" / "masks"
    assert configs["slow"].data.mask_data_dir is None
    options.write_text("default:\nmuch: {optim: {learning_rates: 1.0e-5}}\n")
    with pytest.raises(ConfigError, match="much: .*learning_rates"):
        bench.settings_of(asked)


def test_masks_are_where_the_toy_is(bench: ModuleType, tmp_path: Path) -> None:
    (folder,) = bench.render_subjects(given(bench, tmp_path, "--subjects", "1"))
    photos, masks = list_photos(folder / "photos"), list_photos(folder / "masks")
    assert [path.stem for path in masks] == [path.stem for path in photos]
    for path, photo in zip(masks, photos, strict=True):
        with Image.open(path) as mask, Image.open(photo) as picture:
            assert (mask.mode, mask.size) == ("L", picture.size)


@pytest.fixture
def no_work(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Runs that are done at once; the list says which."""
    done: list[str] = []

    def run_job(job):  # type: ignore[no-untyped-def]
        done.append(f"{job.folder.name[:2]} {job.kind} {job.seed}")
        worth = 0.7 + 0.1 * (job.kind == "dora") + 0.05 * job.seed
        result = {"kind": job.kind, "seed": job.seed, "train_seconds": 2.0, "measured": measured(worth).to_json()}
        job.result.write_text(json.dumps(result))

    monkeypatch.setattr(bench, "run_job", run_job)
    monkeypatch.setattr(bench, "base_digest", lambda base: "a base")
    return done


def test_what_is_finished_is_not_done_again(
    bench: ModuleType, no_work: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--config", str(SAMPLE), "--output_dir", str(tmp_path / "out"), "--cpu", "--subjects", "2"]
    assert bench.main([*flags, "--num_held_out", "2", "--kinds", "dora", "lora"]) == 0
    assert len(no_work) == 8
    no_work.clear()
    assert bench.main([*flags, "--num_held_out", "2", "--kinds", "dora", "lora"]) == 0
    assert no_work == []
    assert bench.main([*flags, "--num_held_out", "2", "--kinds", "dora", "--seeds", "0", "1", "2"]) == 0
    assert no_work == ["00 dora 2", "01 dora 2"]
    capsys.readouterr()
    assert bench.main([*flags, "--num_held_out", "3"]) == 2
    told = capsys.readouterr().err
    assert "holds results of another num_held_out; give another --output_dir" in told and told.count("\n") == 1


def test_the_tables(bench: ModuleType, no_work: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--config", str(SAMPLE), "--output_dir", str(tmp_path), "--cpu", "--subjects", "2", "--num_held_out", "2"]
    assert bench.main([*flags, "--kinds", "dora", "lora"]) == 0
    text = capsys.readouterr().out.strip()
    report = json.loads((tmp_path / "report.json").read_text())
    assert (tmp_path / "report.md").read_text().strip() == text
    found = report["differences"]["dora - lora"]["likeness"]
    ours, theirs = (report["kinds"][kind]["figures"]["likeness"]["value"] for kind in ("dora", "lora"))
    assert found["value"] == pytest.approx(ours - theirs) and found["low"] > 0
    assert report["kinds"]["dora"]["train_seconds"] == 2 and report["kinds"]["dora"]["pictures"] == 2 * 2 * 8
    assert "## dora - lora" in text and "## lora" in text
    rows = [line for line in text.splitlines() if line.startswith("| 0")]
    assert len(rows) == 4 and all(row.count("|") == len(bench.SHOWN) + 3 for row in rows)


def test_a_refused_subject_is_named(bench: ModuleType, tmp_path: Path) -> None:
    short = measured(0.9)
    short = replace(short, groups={**short.groups, "base_bare": replace(short.groups["base_bare"], cosine=[0.9] * 8)})
    folders = [tmp_path / "00-mug", tmp_path / "01-mug"]
    for folder, run in zip(folders, (measured(0.9), short), strict=True):
        folder.mkdir()
        result = {"kind": "dora", "seed": 0, "train_seconds": 1.0, "measured": run.to_json()}
        (folder / "dora-0.json").write_text(json.dumps(result))
    text = bench.markdown(bench.make_report(folders, ["dora"], [0]))
    assert "01-mug: No likeness can be given" in text
    assert "| 01-mug | none |" in text
