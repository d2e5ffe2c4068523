"""A subject is made from what a user gives, whole or not at all, and nothing private stays in its photos."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from PIL import Image

from dora_diffusion.config import TrainConfig
from dora_diffusion.errors import ConfigError, MachineError, StudioError
from dora_diffusion.studio.intake import slug
from dora_diffusion.studio.jobs import Studio

MakeStudio = Callable[..., Studio]


def test_a_subject_is_a_folder_with_photos_and_settings(make_studio: MakeStudio, photos: list[Path]) -> None:
    studio = make_studio()
    subject = studio.subject(studio.create_subject(photos, "  rubber   duck ", "", 120))
    assert subject.id == "rubber-duck-1"
    assert (subject.class_noun, subject.trigger, subject.steps) == ("rubber duck", "sks", 120)
    assert [photo.name for photo in subject.photos] == ["01.jpg", "02.jpg", "03.jpg"]
    config = TrainConfig.model_validate(yaml.safe_load(subject.config_file.read_text()))
    assert config.data.instance_data_dir == subject.folder / "photos"
    assert config.run.output_dir == subject.run_folder
    preset = TrainConfig(preset="toybox-balanced")
    assert (config.adapter, config.optim, config.prior) == (preset.adapter, preset.optim, preset.prior)
    assert config.run.train_batch_size == preset.run.train_batch_size and config.adapter.kind == "dora"


def test_photos_are_stored_upright_and_without_metadata(make_studio: MakeStudio, photos: list[Path]) -> None:
    studio = make_studio()
    stored = studio.subject(studio.create_subject(photos, "duck", "sks", 120)).photos
    with Image.open(stored[0]) as photo:
        assert photo.size == (60, 80)  # 80 x 60 on its side
        assert not photo.getexif()
        assert "comment" not in photo.info
    assert b"Exif" not in stored[0].read_bytes()


def test_names_are_given_once(make_studio: MakeStudio, photos: list[Path]) -> None:
    studio = make_studio()
    made = [studio.create_subject(photos, "duck", "sks", 120) for _ in range(3)]
    assert made == ["duck-1", "duck-2", "duck-3"]
    assert [subject.id for subject in studio.subjects()] == made[::-1]


@pytest.mark.parametrize(
    ("words", "expected"),
    [("Rubber Duck!", "rubber-duck"), ("кот", "subject"), ("../../etc", "etc"), ("a" * 90, "a" * 48), ("-", "subject")],
)
def test_any_words_become_a_safe_name(words: str, expected: str) -> None:
    assert slug(words) == expected


def test_a_bad_photo_is_named_and_nothing_is_left_behind(make_studio: MakeStudio, photos: list[Path]) -> None:
    studio = make_studio()
    photos[1].write_text("this is text, whatever its name says")
    with pytest.raises(StudioError, match=r"photo1\.jpg is not a photo"):
        studio.create_subject(photos, "duck", "sks", 120)
    assert studio.subjects() == []
    assert list((studio.home / "subjects").iterdir()) == []


@pytest.mark.parametrize("count", [0, 51])
def test_the_number_of_photos_is_checked(make_studio: MakeStudio, photos: list[Path], count: int) -> None:
    with pytest.raises(StudioError, match="photos"):
        make_studio().create_subject(photos[:1] * count, "duck", "sks", 120)


@pytest.mark.parametrize(
    ("noun", "trigger", "says"),
    [
        ("  ", "sks", "What is it"),
        ("d" * 61, "sks", "At most 60"),
        ("duck", "two words", "one rare word"),
        ("duck", "s" * 33, "one rare word"),
    ],
)
def test_words_are_checked(make_studio: MakeStudio, photos: list[Path], noun: str, trigger: str, says: str) -> None:
    with pytest.raises(StudioError, match=says):
        make_studio().create_subject(photos, noun, trigger, 120)


def test_no_steps_are_refused_in_plain_words(make_studio: MakeStudio, photos: list[Path]) -> None:
    with pytest.raises(ConfigError, match="max_train_steps must be .* 1, got 0"):
        make_studio().create_subject(photos, "duck", "sks", 0)
    assert list((make_studio().home / "subjects").iterdir()) == []


@pytest.mark.parametrize(
    "subject_id", ["", "..", "../duck-1", "duck-1/../duck-1", "Duck-1", "d" * 65, "-duck", "/etc", "nobody-1", None]
)
def test_an_id_leads_nowhere_else(make_studio: MakeStudio, photos: list[Path], subject_id: str) -> None:
    studio = make_studio()
    studio.create_subject(photos, "duck", "sks", 120)
    with pytest.raises(StudioError):
        studio.subject(subject_id)


def test_a_link_out_of_the_home_is_no_subject(make_studio: MakeStudio, photos: list[Path], tmp_path: Path) -> None:
    studio = make_studio()
    inside = studio.subject(studio.create_subject(photos, "duck", "sks", 120)).folder
    inside.rename(tmp_path / "outside")
    (studio.home / "subjects" / "duck-1").symlink_to(tmp_path / "outside")
    with pytest.raises(StudioError, match="no subject"):
        studio.subject("duck-1")
    assert studio.subjects() == []


def test_unreadable_settings_do_not_take_the_others_away(make_studio: MakeStudio, photos: list[Path]) -> None:
    studio = make_studio()
    studio.create_subject(photos, "duck", "sks", 120)
    broken = studio.subject(studio.create_subject(photos, "cat", "sks", 120))
    broken.config_file.write_text("run: {max_train_steps: -5}")
    with pytest.raises(StudioError, match="cannot be read"):
        make_studio().subject(broken.id)
    assert [subject.id for subject in make_studio().subjects()] == ["duck-1"]


def test_the_same_photos_and_words_find_the_same_subject(make_studio: MakeStudio, photos: list[Path]) -> None:
    studio = make_studio()
    made = studio.create_subject(photos, "duck", "sks", 120)
    assert studio.find_subject(photos, "duck", "", 120) == made
    assert (
        studio.find_subject(studio.shown_photos(made), "duck", "sks", 120) == made
    )  # what the page shows after a reload
    assert studio.find_subject(photos[:2], "duck", "sks", 120) is None
    assert studio.find_subject(photos, "duck", "sks", 250) is None
    assert studio.find_subject(photos, "goose", "sks", 120) is None


def test_photos_are_shown_from_the_media_folder(make_studio: MakeStudio, photos: list[Path]) -> None:
    studio = make_studio()
    made = studio.create_subject(photos, "duck", "sks", 120)
    shown = studio.shown_photos(made)
    assert [path.read_bytes() for path in shown] == [path.read_bytes() for path in studio.subject(made).photos]
    assert all(path.is_relative_to(studio.media) for path in shown)


def test_home_is_private(tmp_path: Path) -> None:
    assert Studio(tmp_path / "home").home.stat().st_mode & 0o077 == 0


def test_a_home_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="DORA_HOME"):
        Studio(tmp_path / "file" / "home")
