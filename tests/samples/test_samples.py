"""The samples: each is headed by the command that runs it, parses, and has its photos."""

import shlex
from pathlib import Path

import pytest

from dora_diffusion.cli.demo import demo_training
from dora_diffusion.cli.parse import parse
from dora_diffusion.config import DemoConfig, TrainConfig
from dora_diffusion.config.files import load_yaml
from dora_diffusion.data.photos import list_photos, open_photo

ROOT = Path(__file__).parents[2]
SAMPLES = sorted((ROOT / "samples").glob("*.yaml"))


def test_every_subject_has_a_sample_and_every_sample_a_subject() -> None:
    subjects = [path.name for path in sorted((ROOT / "samples" / "subjects").iterdir())]
    assert len(subjects) >= 6 and [path.stem for path in SAMPLES] == subjects


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_the_first_line_is_the_command_that_runs_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first == f"# dora-diffusion train samples/{path.name}"
    _, program, command, *arguments = shlex.split(first)
    assert (program, command) == ("dora-diffusion", "train")
    monkeypatch.chdir(ROOT)
    config = parse(TrainConfig, arguments, "train")
    assert config == load_yaml(TrainConfig, path)
    assert config.data.class_noun and config.data.class_noun in config.data.prompt()
    assert config.run.output_dir == Path("runs") / path.stem


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_its_photos_are_there_and_can_be_read(path: Path) -> None:
    config = load_yaml(TrainConfig, path)
    assert config.data.instance_data_dir == Path("samples/subjects") / path.stem
    photos = list_photos(ROOT / config.data.instance_data_dir)
    assert len(photos) >= 5
    for photo in photos:
        assert min(open_photo(photo).size) >= 128


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_the_demo_runs_it_from_any_folder(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = demo_training(DemoConfig(subject=path.stem, output_dir=Path("here"), max_train_steps=3))
    assert config.data.instance_data_dir is not None and len(list_photos(config.data.instance_data_dir)) >= 5
    assert config.run.output_dir == Path("here/run") and config.run.max_train_steps == 3
    assert config.model.pretrained_model_name_or_path == "toybox"
