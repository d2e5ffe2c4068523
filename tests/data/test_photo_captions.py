"""What a photo is called: found beside it, in a table or in the prompt; shuffled and dropped by the sample's number."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dora_diffusion.data.captions import Captions, find_captions, tell_origins
from dora_diffusion.errors import DataError

PROMPT = "a photo of sks dog"


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """a.jpg, b.png and c.jpg."""
    paths = [tmp_path / name for name in ("a.jpg", "b.png", "c.jpg")]
    for path in paths:
        Image.new("RGB", (8, 8)).save(path)
    return paths


def write_metadata(folder: Path, *lines: dict[str, Any] | str) -> None:
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / "metadata.jsonl").write_text(text, encoding="utf-8")


def found(photos: list[Path], source: Any = "auto", column: str | None = None) -> list[tuple[str, str]]:
    return [(caption.text, caption.origin) for caption in find_captions(photos, source, column, PROMPT)]


def test_without_captions_all_get_the_prompt(photos: list[Path]) -> None:
    assert found(photos) == [(PROMPT, "prompt")] * 3


def test_sidecars_are_read_by_stem(photos: list[Path], tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a dog\n on  grass\n", encoding="utf-8")
    (tmp_path / "b.txt").write_bytes("\ufeffein Dackel, müde".encode())  # as Notepad saves it
    (tmp_path / "c.txt").write_text("{trigger} {class}")
    expected = [("a dog on grass", "sidecar"), ("ein Dackel, müde", "sidecar"), ("{trigger} {class}", "sidecar")]
    assert found(photos) == found(photos, "sidecar") == expected
    assert found(photos, "prompt") == [(PROMPT, "prompt")] * 3


def test_metadata_is_datasets_imagefolder(photos: list[Path], tmp_path: Path) -> None:
    rows = [{"file_name": name, "text": f"dog {name}", "long": f"a dog called {name}"} for name in ("c.jpg", "a.jpg")]
    write_metadata(tmp_path, *rows, "", {"file_name": "b.png", "text": "dog b", "long": "a dog called b"})
    assert found(photos, "metadata") == [(text, "metadata") for text in ("dog a.jpg", "dog b", "dog c.jpg")]
    assert found(photos, "auto", "long")[1] == ("a dog called b", "metadata")


def test_auto_takes_the_nearest_for_each_photo(photos: list[Path], tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("by file")
    write_metadata(tmp_path, {"file_name": "a.jpg", "text": "by line"}, {"file_name": "c.jpg", "text": "by line"})
    captions = find_captions(photos, "auto", None, PROMPT)
    assert [caption.text for caption in captions] == ["by file", PROMPT, "by line"]
    assert tell_origins(captions) == "1 in .txt files, 1 in metadata.jsonl, 1 by the prompt"
    assert found(photos, "auto", "text")[0] == ("by line", "metadata")  # who names the column means the table


def refusal(photos: list[Path], source: Any = "auto", column: str | None = None) -> str:
    with pytest.raises(DataError) as caught:
        find_captions(photos, source, column, PROMPT)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_photo_without_a_caption_is_named(photos: list[Path], tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("dog")
    assert "No caption for a.jpg, c.jpg: with --captions sidecar" in refusal(photos, "sidecar")
    write_metadata(tmp_path, {"file_name": "a.jpg", "text": "dog"})
    assert "No caption for b.png, c.jpg: with --captions metadata" in refusal(photos, "metadata")
    many = [tmp_path / f"{k}.jpg" for k in range(7)]
    assert "0.jpg, 1.jpg, 2.jpg, 3.jpg, 4.jpg and 2 more" in refusal(many, "sidecar")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "a.txt holds an empty caption"),
        (b" \n\t", "a.txt holds an empty caption"),
        (b"caf\xe9", "a.txt is not UTF-8 text (byte 4)"),
    ],
)
def test_a_bad_sidecar_is_told(photos: list[Path], tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    assert told in refusal(photos)


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (['{"file_name": "a.jpg"'], "line 1 is not JSON"),
        (["[1]"], "line 1 must be a JSON object, got list"),
        ([{"file_name": "a.jpg", "txet": "dog"}], "line 1 needs 'text' with a text, and has: 'file_name', 'txet'"),
        ([{"text": "dog"}], "needs 'file_name' with a text, and has: 'text'"),
        ([{"file_name": "a.jpg", "text": 3}], "needs 'text' with a text"),
        ([{"file_name": "a.jpg", "text": " "}], "line 1 holds an empty caption"),
        (["", {"file_name": "d.jpg", "text": "dog"}], "line 2 names 'd.jpg', which is no photo of"),
        ([{"file_name": "a.jpg", "text": "dog"}] * 2, "line 2 names 'a.jpg' a second time"),
    ],
)
def test_a_bad_table_is_told(photos: list[Path], tmp_path: Path, lines: list[Any], told: str) -> None:
    write_metadata(tmp_path, *lines)
    assert told in refusal(photos) and told in refusal(photos, "metadata")


def test_a_table_that_is_asked_for_must_be_there(photos: list[Path]) -> None:
    assert "There is no metadata.jsonl in" in refusal(photos, "metadata")
    assert '"long": "a photo of ..."' in refusal(photos, "auto", "long")


def test_a_sidecar_of_two_photos_belongs_to_none(tmp_path: Path) -> None:
    paths = [tmp_path / "a.jpg", tmp_path / "a.png"]
    (tmp_path / "a.txt").write_text("dog")
    assert "a.txt stands beside a.jpg and a.png" in refusal(paths)


def test_a_caption_is_its_photos(photos: list[Path]) -> None:
    captions = Captions(("red", "blue"))
    assert [captions.caption(photo, 0, 5) for photo in (0, 1, 0)] == ["red", "blue", "red"]
    assert captions.fixed() == ["red", "blue"] and Captions(("red", "red")).fixed() == ["red"]


def test_dropout_drops_its_share(photos: list[Path]) -> None:
    captions = Captions(("dog",), dropout=0.25)
    dropped = [captions.caption(0, 3, sample) == "" for sample in range(2000)]
    assert 410 < sum(dropped) < 590  # 500 expected, 4.6 standard deviations
    assert {Captions(("dog",), dropout=1.0).caption(0, 0, sample) for sample in range(50)} == {""}
    assert captions.fixed() == ["dog", ""]
    assert [Captions(("cat",), dropout=0.25).caption(0, 3, sample) == "" for sample in range(2000)] == dropped
    assert [captions.caption(0, 4, sample) == "" for sample in range(2000)] != dropped


def test_shuffling_keeps_the_first_tags_and_loses_none() -> None:
    captions = Captions(("sks dog,  grass , sun,, tree",), shuffle=True, keep_tags=1)
    drawn = [captions.caption(0, 0, sample) for sample in range(600)]
    assert {text.split(", ")[0] for text in drawn} == {"sks dog"}
    orders = Counter(tuple(text.split(", ")[1:]) for text in drawn)
    assert len(orders) == 6 and all(sorted(order) == ["grass", "sun", "tree"] for order in orders)
    assert min(orders.values()) > 65  # 100 expected, 3.8 standard deviations
    assert captions.caption(0, 0, 17) == drawn[17]
    loose = Captions(captions.texts, shuffle=True)
    assert len({loose.caption(0, 0, sample) for sample in range(600)}) == 24


def test_what_shuffling_cannot_change_is_left_as_it_was_written() -> None:
    captions = Captions(("one tag only", "a,  b", "a, b, c"), shuffle=True, keep_tags=1)
    assert [captions.caption(photo, 0, 0) for photo in (0, 1)] == ["one tag only", "a,  b"]
    assert captions.fixed() == ["one tag only", "a,  b"]  # the third is not known before it is drawn
