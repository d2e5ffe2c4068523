"""A subject is made whole or not at all, and nothing private stays in its photos."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from waiting import wait_until

from dora_diffusion.errors import DoraError, StudioError
from dora_diffusion.studio import album, intake
from dora_diffusion.studio.intake import slug
from dora_diffusion.studio.studio import Studio
from dora_diffusion.studio.subjects import TRASH_S

MakeStudio = Callable[..., Studio]


@pytest.fixture
def studio(make_studio: MakeStudio) -> Studio:
    made = make_studio(start=False)
    made.database.read_only = False
    return made


def files(studio: Studio) -> list[str]:
    """Everything in the home that a subject could leave."""
    folders = [studio.home.path / "subjects", studio.home.media, studio.home.trash]
    return sorted(str(p.relative_to(studio.home.path)) for f in folders for p in f.rglob("*") if p.is_file())


def test_a_subject_from_photos_and_words(studio: Studio, photos: list[Path]) -> None:
    subject = studio.subjects.create(photos, "", "  rubber   duck ", "")
    assert (subject.id, subject.name, subject.class_noun) == ("rubber-duck-1", "rubber duck 1", "rubber duck")
    assert (subject.trigger, subject.words, subject.base) == ("sks", "sks rubber duck", "toybox")
    assert studio.subjects.list() == [subject] == [studio.subjects.get("rubber-duck-1")]
    notes = studio.subjects.photos(subject.id)
    assert [note.name for note in notes] == ["01.jpg", "02.jpg", "03.jpg"]
    assert notes[0].given_name == "photo0.jpg"
    assert all(note.path.is_file() and studio.home.media in note.path.parents for note in notes)
    with Image.open(notes[0].thumb) as thumb:
        assert max(thumb.size) <= 256


def test_photos_are_stored_upright_and_without_metadata(studio: Studio, photos: list[Path]) -> None:
    id = studio.subjects.create(photos, "", "duck").id
    stored = studio.subjects.photo_files(id)
    with Image.open(stored[0]) as photo:
        assert photo.size == (60, 80)  # 80 x 60 on its side
        assert not photo.getexif() and "comment" not in photo.info
    for note in studio.subjects.photos(id):
        for content in (note.path.read_bytes(), note.thumb.read_bytes()):
            assert b"Exif" not in content and b"made by somebody" not in content


def test_names_and_ids_are_given_once(studio: Studio, photos: list[Path]) -> None:
    made = [studio.subjects.create(photos, "", "duck") for _ in range(3)]
    assert [s.id for s in made] == ["duck-1", "duck-2", "duck-3"]
    assert [s.name for s in made] == ["duck 1", "duck 2", "duck 3"]
    assert [s.id for s in studio.subjects.list()] == ["duck-3", "duck-2", "duck-1"]
    studio.subjects.delete("duck-3", "duck 3")
    assert studio.subjects.create(photos, "", "duck").id == "duck-4"  # that of the trash may come back


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("Omas Kännchen, süß", "omas-kannchen-suss"),
        ("Café ½", "cafe-1-2"),
        ("Rubber Duck!", "rubber-duck"),
        ("кот", "subject"),
        ("../../etc", "etc"),
        ("a" * 90, "a" * 48),
        ("-", "subject"),
    ],
)
def test_any_words_become_a_safe_id(words: str, expected: str) -> None:
    assert slug(words) == expected


@pytest.mark.parametrize("count", [0, 101])
def test_the_number_of_photos_is_checked(studio: Studio, photos: list[Path], count: int) -> None:
    with pytest.raises(StudioError, match="photos"):
        studio.subjects.create(photos[:1] * count, "", "duck")
    assert files(studio) == [] and studio.subjects.list() == []


@pytest.mark.parametrize(
    ("name", "noun", "trigger", "says"),
    [
        ("", "  ", "sks", "class noun is missing"),
        ("", "d" * 61, "sks", "at most 60"),
        ("", "my very old green duck", "sks", "at most 4 are taken, got 5.*toy robot"),
        ("n" * 61, "duck", "sks", "at most 60"),
        ("Rex\x00", "duck", "sks", "plain letters"),
        ("Rex\u202egpj", "duck", "sks", "plain letters"),
        ("", "duck\x1b[31m", "sks", "plain letters"),
        ("", "{trigger}", "sks", "braces"),
        ("", "duck", "two words", "one rare word"),
        ("", "duck", "s" * 33, "one rare word"),
        ("", "duck", "{class}", "one rare word"),
        ("", "duck", "a\x07b", "one rare word"),
    ],
)
def test_words_that_are_none(studio: Studio, photos: list[Path], name: str, noun: str, trigger: str, says: str) -> None:
    with pytest.raises(StudioError, match=says):
        studio.subjects.create(photos, name, noun, trigger)
    assert files(studio) == [] and studio.subjects.list() == []
    assert list((studio.home.path / "subjects").iterdir()) == []


def test_hostile_names_are_kept_as_text(studio: Studio, photos: list[Path]) -> None:
    subject = studio.subjects.create(photos, "<img src=x onerror=alert(1)>", "../../etc")
    assert subject.id == "img-src-x-onerror-alert-1-1"
    assert studio.subjects.get(subject.id).name == "<img src=x onerror=alert(1)>"


@pytest.mark.parametrize("id", ["", "..", "../x", "a/b", "A", "-a", "a" * 65, "a\n", "a\x00", None, 7, "nobody-1"])
def test_ids_that_are_none(studio: Studio, photos: list[Path], id: str) -> None:
    subjects = studio.subjects
    for do in (
        lambda: subjects.get(id),
        lambda: subjects.photos(id),
        lambda: subjects.rename(id, "x"),
        lambda: subjects.delete(id, "x"),
        lambda: subjects.restore(id),
        lambda: subjects.adapter(id),
        lambda: subjects.add_photos(id, photos),
        lambda: subjects.choose(id, "job-1", None),
        lambda: studio.jobs.enqueue(id, "quick"),
    ):
        with pytest.raises(StudioError):
            do()


def test_a_link_out_of_the_home_is_no_subject(studio: Studio, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (studio.home.path / "subjects" / "duck-1").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StudioError, match="no subject"):
        studio.home.path_of("subject", "duck-1")


def test_a_bad_photo_is_named_and_nothing_is_left_behind(studio: Studio, photos: list[Path]) -> None:
    photos[1].write_text("this is text, whatever its name says")
    with pytest.raises(StudioError, match=r"photo1\.jpg is not a photo"):
        studio.subjects.create(photos, "", "duck")
    assert files(studio) == [] and studio.subjects.list() == []


def test_added_photos_are_refused_one_by_one(
    studio: Studio, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = studio.subjects.create(photos[:1], "", "duck").id
    text, huge, bomb = tmp_path / "text.jpg", tmp_path / "huge.jpg", tmp_path / "bomb.png"
    text.write_text("words")
    huge.write_bytes(b"\xff\xd8" + bytes(2_000_000))
    Image.new("1", (9000, 9000)).save(bomb)
    monkeypatch.setattr(intake, "MAX_BYTES", 1_000_000)
    monkeypatch.setattr(intake, "MAX_PIXELS", 1_000_000)
    given = [photos[0], text, huge, bomb, photos[1], tmp_path / "missing.jpg", tmp_path]
    refused = studio.subjects.add_photos(id, given)
    assert [note.given_name for note in studio.subjects.photos(id)] == ["photo0.jpg", "photo1.jpg"]
    said = "\n".join(refused)
    for words in (
        "photo0.jpg is there already: it is photo 1",
        "text.jpg is not a photo",
        "huge.jpg has 2 MB",
        "bomb.png has 81 megapixels",
        "missing.jpg cannot be found",
    ):
        assert words in said
    assert len(refused) == 6
    assert len(studio.subjects.photo_files(id)) == 2


def test_too_many_photos_in_all(studio: Studio, photos: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(album, "MAX_PHOTOS", 3)
    id = studio.subjects.create(photos[:2], "", "duck").id
    with pytest.raises(StudioError, match="At most 3"):
        studio.subjects.add_photos(id, photos[1:])


def test_remove_a_photo(studio: Studio, photos: list[Path]) -> None:
    id = studio.subjects.create(photos, "", "duck").id
    studio.subjects.remove_photo(id, "02.jpg")
    assert [note.name for note in studio.subjects.photos(id)] == ["01.jpg", "03.jpg"]
    assert not list(studio.home.media.glob("*/duck-1/02.jpg"))
    for name in ("02.jpg", "../../../studio.db", "/etc/passwd", ""):
        with pytest.raises(StudioError, match="no photo"):
            studio.subjects.remove_photo(id, name)
    Image.radial_gradient("L").save(photos[1])
    assert studio.subjects.add_photos(id, [photos[1]]) == []
    assert [note.name for note in studio.subjects.photos(id)] == ["01.jpg", "03.jpg", "04.jpg"]


def test_a_draft_becomes_a_subject(studio: Studio, photos: list[Path]) -> None:
    draft = studio.subjects.draft()
    assert draft.is_draft and studio.subjects.list() == [] and studio.subjects.latest_draft() == draft
    studio.subjects.add_photos(draft.id, photos)
    subject = studio.subjects.update(draft.id, class_noun="duck", trigger="zwx")
    assert (subject.name, subject.words, subject.is_draft) == ("duck 1", "zwx duck", False)
    assert studio.subjects.list() == [subject] and studio.subjects.latest_draft() is None


def test_update_checks_what_it_changes(studio: Studio, photos: list[Path]) -> None:
    subject = studio.subjects.create(photos, "Rex", "dog")
    assert studio.subjects.rename(subject.id, "  Max  ").name == "Max"
    assert studio.subjects.update(subject.id, base="toybox") == studio.subjects.get(subject.id)
    for change in ({"name": ""}, {"class_noun": " "}, {"trigger": "a b"}, {"base": "/etc/passwd"}):
        with pytest.raises(DoraError):
            studio.subjects.update(subject.id, **change)
    assert studio.subjects.get(subject.id).name == "Max"


def test_the_one_worked_on_last_comes_first(studio: Studio, photos: list[Path]) -> None:
    first, second = (studio.subjects.create(photos, "", noun).id for noun in ("duck", "cat"))
    assert [s.id for s in studio.subjects.list()] == [second, first]
    studio.subjects.rename(first, "Donald")
    assert [s.id for s in studio.subjects.list()] == [first, second]


def test_delete_and_restore(studio: Studio, photos: list[Path]) -> None:
    subject = studio.subjects.create(photos, "Rex", "dog")
    notes = studio.subjects.photos(subject.id)
    with pytest.raises(StudioError, match="type its name exactly: Rex"):
        studio.subjects.delete(subject.id, "rex")
    studio.subjects.delete(subject.id, " Rex ")
    assert studio.subjects.list() == [] and [s.id for s in studio.subjects.deleted()] == [subject.id]
    assert not notes[0].path.exists() and not studio.home.path_of("subject", subject.id).exists()
    with pytest.raises(StudioError, match="trash"):
        studio.subjects.rename(subject.id, "x")
    back = studio.subjects.restore(subject.id)
    assert back.deleted is None and studio.subjects.list() == [back]
    assert studio.subjects.photos(subject.id) == notes and notes[0].path.exists()
    assert list(studio.home.trash.iterdir()) == []
    with pytest.raises(StudioError, match="trash"):
        studio.subjects.restore(subject.id)


def test_what_was_drawn_while_its_subject_went_takes_no_picture_from_what_comes_back(
    studio: Studio, photos: list[Path]
) -> None:
    subject = studio.subjects.create(photos, "Rex", "dog")
    thumbs = studio.home.media_of("thumbs", subject.id)
    (thumbs / "before.jpg").write_bytes(b"drawn before")
    studio.subjects.delete(subject.id, "Rex")
    (studio.home.media_of("thumbs", subject.id) / "meanwhile.jpg").write_bytes(b"drawn meanwhile")
    studio.subjects.restore(subject.id)
    assert {file.name: file.read_bytes() for file in thumbs.iterdir()} == {
        "before.jpg": b"drawn before",
        "meanwhile.jpg": b"drawn meanwhile",
    }
    assert list(studio.home.trash.iterdir()) == []


def test_the_trash_is_emptied_after_a_week(make_studio: MakeStudio, photos: list[Path]) -> None:
    studio = make_studio()
    subject = studio.subjects.create(photos, "Rex", "dog")
    id = studio.jobs.enqueue(subject.id, "quick", {"run.max_train_steps": 6}).id
    with pytest.raises(StudioError, match="being trained, or waits"):
        studio.subjects.delete(subject.id, "Rex")
    wait_until(lambda: studio.jobs.get(id).state == "done")
    studio.jobs.previews(id)
    studio.subjects.delete(subject.id, "Rex")
    assert studio.jobs.list() == []
    deleted = studio.subjects.get(subject.id).deleted or 0
    assert studio.subjects.purge(deleted + TRASH_S - 1) == []
    assert studio.subjects.purge(deleted + TRASH_S + 1) == [subject.id]
    assert files(studio) == [] and not studio.home.path_of("job", id).exists()
    with pytest.raises(StudioError):
        studio.jobs.get(id)


def test_samples_are_one_click_away(studio: Studio) -> None:
    assert studio.subjects.samples() == ["teapot", "backpack", "robot"]
    subject = studio.subjects.create_from_sample("robot")
    assert (subject.class_noun, len(studio.subjects.photos(subject.id))) == ("robot", 5)
    assert all(note.findings == () for note in studio.subjects.photos(subject.id))
    for name in ("robt", "../subjects/robot", ""):
        with pytest.raises(StudioError, match="no sample"):
            studio.subjects.create_from_sample(name)


def test_the_checkpoint_that_was_chosen_stands_for_the_subject(make_studio: MakeStudio, photos: list[Path]) -> None:
    studio = make_studio()
    subject = studio.subjects.create(photos, "", "duck")
    assert studio.subjects.adapter(subject.id) is None
    ids = []
    for _ in range(2):
        ids.append(studio.jobs.enqueue(subject.id, "quick", {"run.max_train_steps": 12}).id)
        wait_until(lambda: studio.jobs.get(ids[-1]).state == "done")
    assert studio.subjects.adapter(subject.id) == studio.jobs.adapter(ids[1])
    studio.subjects.choose(subject.id, ids[0], 6)
    assert studio.subjects.adapter(subject.id) == studio.jobs.adapter(ids[0], 6)
    studio.subjects.choose(subject.id, ids[0], None)
    assert studio.subjects.adapter(subject.id) == studio.jobs.adapter(ids[0])
    other = studio.subjects.create(photos, "", "cat")
    for id, job, step in ((subject.id, ids[0], 7), (other.id, ids[0], 6), (subject.id, "job-99", None)):
        with pytest.raises(StudioError, match="no checkpoint"):
            studio.subjects.choose(id, job, step)
    with pytest.raises(StudioError, match="no checkpoint"):
        studio.jobs.adapter(ids[0], 7)


def test_findings_are_json_in_the_table(studio: Studio, photos: list[Path]) -> None:
    id = studio.subjects.create(photos, "", "duck").id
    rows = studio.database.rows("select findings from photos where subject_id = ?", (id,))
    assert {finding[0] for row in rows for finding in json.loads(row["findings"])} == {"tiny", "near-duplicate"}


def test_a_full_disk_is_told_and_leaves_nothing(
    studio: Studio, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*values: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(StudioError, match=r"cannot keep photo0\.jpg: no space left"):
        studio.subjects.create(photos, "", "duck")
    monkeypatch.undo()
    subject = studio.subjects.create(photos, "", "duck")
    monkeypatch.setattr("dora_diffusion.studio.jobs.link_or_copy", full)
    with pytest.raises(StudioError, match="cannot prepare the training: no space left"):
        studio.jobs.enqueue(subject.id, "quick")
    assert studio.jobs.list() == [] and list((studio.home.path / "jobs").iterdir()) == []
