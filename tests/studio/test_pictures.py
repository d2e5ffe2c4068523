"""Pictures are files and rows before they are shown; their settings come back from the file, whoever made it."""

import json
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from shop import Shop, fake_workshop

from dora_diffusion.errors import StudioError
from dora_diffusion.studio.orders import Order
from dora_diffusion.studio.picture_settings import MAX_TEXT
from dora_diffusion.studio.pictures import ALONE

REX = Order(subject_id="dog-1", prompt="a photo of <Rex>", num_inference_steps=2, num_images=2, seed=7)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    file = tmp_path / "adapter.safetensors"
    file.write_bytes(b"trained")
    return file


@pytest.fixture
def shop(tmp_path: Path, adapter: Path):
    made = Shop(tmp_path / "home", fake_workshop(tmp_path), **{"dog-1": adapter})
    yield made
    made.close()


def png(path: Path, **texts: str) -> Path:
    info = PngInfo()
    for key, text in texts.items():
        info.add_text(key, text)
    Image.new("RGB", (96, 64)).save(path, pnginfo=info)
    return path


def test_each_is_a_file_and_a_row_before_it_is_shown(shop: Shop) -> None:
    steps: list[tuple[int, int]] = []
    shown = []
    for picture in shop.pictures.draw(REX, on_step=lambda done, total: steps.append((done, total))):
        assert picture.path.is_file() and picture.thumb.is_file()
        assert shop.pictures.get(picture.id) == picture
        shown.append(picture)
    assert [p.order.seed for p in shown] == [7, 8] and all(p.order.num_images == 1 for p in shown)
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert {p.sent for p in shown} == {"a photo of sks dog"}
    assert shop.pictures.history() == shop.pictures.history("dog-1") == shown[::-1]
    assert shown[0].path.parent == shop.home.media / "pictures" / "dog-1"
    assert Image.open(shown[1].path).getpixel((0, 0)) == (8, 100, 0)


def test_the_base_alone_draws_too(shop: Shop) -> None:
    (picture,) = shop.pictures.draw(Order(prompt="a castle", seed=-1, num_inference_steps=1, width=96, height=64))
    assert picture.order.seed >= 0 and f"seed{picture.order.seed}" in picture.path.name
    assert Image.open(picture.path).size == (96, 64) and picture.path.parent.name == "base-toybox"
    assert shop.pictures.count() == 1 and shop.pictures.count("dog-1") == 0
    list(shop.pictures.draw(REX))
    assert shop.pictures.history(ALONE) == [picture] and shop.pictures.count(ALONE) == 1


def test_what_cannot_be_drawn_is_refused_with_the_call(shop: Shop) -> None:
    with pytest.raises(StudioError, match="at most 1000"):
        shop.pictures.draw(replace(REX, prompt="x" * 1001))
    shop.adapters["dog-1"] = None
    with pytest.raises(StudioError, match="Rex is not trained yet"):
        shop.pictures.draw(REX)
    with pytest.raises(StudioError, match="id of a subject"):
        shop.pictures.draw(replace(REX, subject_id="../../etc"))
    with pytest.raises(StudioError, match="no subject"):
        shop.pictures.draw(replace(REX, subject_id="cat-1"))
    with pytest.raises(StudioError, match="is not in the list"):
        shop.pictures.draw(Order(prompt="x", base="/etc/passwd"))
    with shop.database.transaction() as connection:
        connection.execute("update subjects set deleted = 1.0")
    with pytest.raises(StudioError, match="in the trash"):
        shop.pictures.draw(REX)
    assert not shop.workshop.is_running


def test_a_checkpoint_is_one_of_the_subjects_own(shop: Shop, tmp_path: Path) -> None:
    shop.add_subject("cat-1", "Tom", "cat")
    file = tmp_path / "step.safetensors"
    file.touch()
    shop.steps["job-1", 20] = shop.steps["job-2", 20] = file
    pictures = list(shop.pictures.draw(replace(REX, job_id="job-1", step=20)))
    assert (pictures[0].order.job_id, pictures[0].order.step) == ("job-1", 20)
    for job, says in [("job-2", "not one of Rex"), ("job-9", "no job"), ("job/1", "id of a job")]:
        with pytest.raises(StudioError, match=says):
            shop.pictures.draw(replace(REX, job_id=job, step=20))


def test_the_adapters_own_base_is_taken(shop: Shop) -> None:
    """A subject that was given another base still draws with what it was trained on."""
    with shop.database.transaction() as connection:
        connection.execute("update subjects set base = 'owner/other'")
    (picture, _) = shop.pictures.draw(replace(REX, base="anything"))
    assert picture.order.base == "toybox"


def test_stopped_it_keeps_what_was_finished(shop: Shop, tmp_path: Path, adapter: Path) -> None:
    slow = Shop(tmp_path / "slow", fake_workshop(tmp_path, 0.01), **{"dog-1": adapter})
    stop = threading.Event()
    shown = []
    for picture in slow.pictures.draw(replace(REX, num_images=8, num_inference_steps=10), stop=stop):
        shown.append(picture)
        stop.set()
    assert 1 <= len(shown) < 8 and slow.pictures.count() == len(shown)
    assert len(list(slow.pictures.draw(REX))) == 2, "the next order works"
    slow.close()


def test_a_page_that_leaves_ends_its_order_and_keeps_what_was_finished(tmp_path: Path, adapter: Path) -> None:
    slow = Shop(tmp_path / "slow", fake_workshop(tmp_path, 0.01), **{"dog-1": adapter})
    drawing = slow.pictures.draw(replace(REX, num_images=8, num_inference_steps=10))
    next(drawing)
    drawing.close()
    until = time.monotonic() + 10
    while slow.workshop.is_busy and time.monotonic() < until:
        time.sleep(0.01)
    assert not slow.workshop.is_busy and 1 <= slow.pictures.count() < 8
    slow.close()


def test_one_that_is_never_looked_at_is_never_drawn(shop: Shop) -> None:
    shop.pictures.draw(REX)
    assert not shop.workshop.is_running


def test_a_second_instance_draws_nothing(shop: Shop) -> None:
    shop.database.read_only = True
    with pytest.raises(StudioError, match="Another instance"):
        shop.pictures.draw(REX)


def test_deleted_it_is_gone(shop: Shop) -> None:
    picture, other = shop.pictures.draw(REX)
    shop.pictures.delete(picture.id)
    assert not picture.path.exists() and not picture.thumb.exists()
    assert shop.pictures.history() == [other]
    for odd in (picture.id, -1, 2**70, True, "1", None):
        with pytest.raises(StudioError, match="no picture"):
            shop.pictures.delete(odd)  # type: ignore[arg-type]


def test_what_draws_a_picture_again_tells_what_is_not_here_any_more(shop: Shop, adapter: Path) -> None:
    first, second = shop.pictures.draw(REX)
    again, notes = shop.pictures.again(second.id)
    assert notes == [] and list(shop.pictures.draw(again))[0].order == second.order
    with shop.database.transaction() as connection:
        connection.execute("update subjects set deleted = 1.0")
    again, notes = shop.pictures.again(second.id)
    assert again.subject_id is None and again.seed == 8
    assert notes == ["The subject 'Rex' is not here; the base alone will draw it."]
    first.path.unlink()
    with pytest.raises(StudioError):
        shop.pictures.again(first.id)


def test_a_page_of_two_thousand_comes_at_once(shop: Shop) -> None:
    row = "(1.0, ?, 'toybox', 'p', 'p', '', 1.0, ?, 25, null, 'model', 64, 64, 'pictures/x.png', 'thumbs/x.jpg')"
    names = "created, subject_id, base, prompt, words, negative_prompt, strength, seed, num_inference_steps, "
    names += "guidance_scale, sampler, width, height, path, thumb"
    with shop.database.transaction() as connection:
        many = [("dog-1" if k % 2 else None, k) for k in range(2000)]
        connection.executemany(f"insert into pictures ({names}) values {row}", many)
    began = time.perf_counter()
    newest, oldest = shop.pictures.history(limit=24), shop.pictures.history("dog-1", 24, 976)
    assert shop.pictures.count() == 2000 and shop.pictures.count("dog-1") == 1000
    assert time.perf_counter() - began < 0.05
    assert [p.order.seed for p in newest] == list(range(1999, 1975, -1)) and oldest[-1].order.seed == 1
    assert len(shop.pictures.history(limit=10**9)) == 200 and shop.pictures.history(limit=-1) == []


def test_cost_is_told_from_what_was_measured(shop: Shop) -> None:
    assert shop.pictures.seconds_for(REX) is None
    list(shop.pictures.draw(REX))
    assert shop.pictures.seconds_for(replace(REX, num_inference_steps=10, num_images=3)) == pytest.approx(15)


def test_a_file_gives_its_order_back(shop: Shop, adapter: Path) -> None:
    _, second = shop.pictures.draw(REX)
    order, notes = shop.pictures.read(second.path)
    assert order == replace(REX, num_images=1, seed=8) and notes == []
    (again,) = shop.pictures.draw(order)
    assert Image.open(again.path).tobytes() == Image.open(second.path).tobytes()
    assert str(shop.home.path) not in second.path.read_bytes().decode("latin-1")


def test_what_is_not_here_is_told(shop: Shop, tmp_path: Path, adapter: Path) -> None:
    settings = {"adapter_sha256": "0" * 64, "subject": "Rex", "seed": 3}
    order = {"subject_id": "dog-1", "base": "toybox", "prompt": "p", "job_id": "job-1", "step": 50}
    path = png(tmp_path / "a.png", dora_diffusion=json.dumps({**settings, "order": order}))
    found, notes = shop.pictures.read(path)
    assert (found.subject_id, found.job_id, found.step) == ("dog-1", None, None)
    assert notes == [
        "Step 50 of job-1 is not here; Rex as it is now is taken.",
        "Rex was trained again since: the picture will differ.",
    ]
    there = {**settings, "order": {**order, "subject_id": "robot-3", "base": "my model"}, "subject": "Robo"}
    found, notes = shop.pictures.read(png(path, dora_diffusion=json.dumps(there)))
    assert found.subject_id is None and found.base == "toybox"
    assert notes[0].startswith("The base my model is not here") and "'Robo' is not here" in notes[1]
    shop.adapters["dog-1"] = None
    _, notes = shop.pictures.read(
        png(path, dora_diffusion=json.dumps({**settings, "order": {**order, "job_id": None}}))
    )
    assert notes == ["Rex is not trained here yet."]


def test_files_of_the_command_line_are_read(shop: Shop, tmp_path: Path) -> None:
    settings = {"prompt": "a photo", "sampler": "DDIMScheduler", "seed": 5, "width": 128, "height": 128, "model": "x"}
    order, _ = shop.pictures.read(png(tmp_path / "a.png", dora_diffusion=json.dumps(settings)))
    assert (order.prompt, order.seed, order.width, order.sampler) == ("a photo", 5, 128, "model")


A1111 = """a castle, (night:1.2)
on a hill
Negative prompt: blurry, low quality
Steps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7.5, Seed: 123456, Size: 512x768, Model hash: ab12, Model: dream, \
Lora hashes: "a: 1, b: 2", Version: v1.10"""


def test_the_text_of_other_tools_is_read(shop: Shop, tmp_path: Path) -> None:
    order, notes = shop.pictures.read(png(tmp_path / "a.png", parameters=A1111))
    wanted = Order(
        prompt="a castle, (night:1.2) on a hill",
        negative_prompt="blurry, low quality",
        num_inference_steps=20,
        guidance_scale=7.5,
        seed=123456,
        width=512,
        height=768,
        sampler="dpmpp_2m",
    )
    assert order == wanted and notes == ["It was made with the model dream; choose a base here."]


@pytest.mark.parametrize(
    ("text", "expected", "note"),
    [
        ("just words", {"prompt": "just words", "width": 96, "height": 64}, ""),
        ("p\nSteps: 9999, Seed: 1", {"num_inference_steps": 25, "seed": 1}, "number of steps was left out"),
        ("p\nSteps: 20, Seed: 4294967295", {"seed": 0, "num_inference_steps": 20}, "seed was left out"),
        ("p\nSteps: 20, Sampler: Euler a", {"sampler": "model"}, "sampler Euler a is not here"),
        ("p\nSteps: 20, Size: 513x512", {"width": None, "height": 512}, "width was left out"),
        ("p\nSteps: 20, Size: 1e9xNaN", {"width": None, "height": None}, ""),
        ("x" * 1500, {"prompt": "x" * 1000}, "was cut to 1000"),
    ],
)
def test_what_does_not_fit_is_left_out_and_told(
    shop: Shop, tmp_path: Path, text: str, expected: dict[str, Any], note: str
) -> None:
    order, notes = shop.pictures.read(png(tmp_path / "a.png", parameters=text))
    assert {name: getattr(order, name) for name in expected} == expected
    assert note in " ".join(notes)


HOSTILE = [
    "[" * 100_000,
    "9" * 10_000,
    "null",
    "[]",
    '{"order": []}',
    '{"order": {"prompt": 5}}',
    '{"order": {"prompt": ""}}',
    '{"order": {"prompt": {"a": 1}}}',
    '{"prompt": NaN}',
    "\x00",
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_settings_are_nothing(shop: Shop, tmp_path: Path, text: str) -> None:
    with pytest.raises(StudioError, match="says nothing|no prompt"):
        shop.pictures.read(png(tmp_path / "a.png", dora_diffusion=text))
    order, _ = shop.pictures.read(png(tmp_path / "a.png", dora_diffusion=text, parameters="p\nSteps: 5"))
    assert order.num_inference_steps == 5, "the other text is read instead"


@pytest.mark.parametrize(
    "values",
    [
        {"subject_id": "../../../etc/passwd"},
        {"subject_id": {"a": 1}},
        {"subject_id": "x" * 10_000},
        {"base": "/etc/passwd"},
        {"base": ["toybox"]},
        {"job_id": "job-1/../..", "step": 1, "subject_id": "dog-1"},
        {"seed": 10**400},
        {"strength": float("inf")},
        {"width": "64; drop table pictures"},
        {"num_images": 10**9},
        {"sampler": "__class__"},
        {"negative_prompt": ["a"]},
        {"num_inference_steps": True},
        {"__class__": "x", "id": 3},
    ],
    ids=lambda values: next(iter(values)),
)
def test_no_value_is_believed(shop: Shop, tmp_path: Path, values: dict[str, Any]) -> None:
    text = json.dumps({"order": {"prompt": "p", **values}, "seed": values.get("seed", 1)})
    order, notes = shop.pictures.read(png(tmp_path / "a.png", dora_diffusion=text))
    request = shop.pictures.looked_up(order)
    assert request.order.base == "toybox" and request.order.num_images == 1 and len(" ".join(notes)) < 600


def test_huge_texts_and_other_files_are_refused(shop: Shop, tmp_path: Path) -> None:
    with pytest.raises(StudioError, match="says nothing"):
        shop.pictures.read(png(tmp_path / "a.png", parameters="x" * (MAX_TEXT + 1)))
    info = PngInfo()
    info.add_text("parameters", "x" * 20_000_000, zip=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "bomb.png", pnginfo=info)
    for name, content in [("bomb.png", None), ("text.png", b"not a picture"), ("empty.png", b"")]:
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(StudioError, match="no picture that can be read"):
            shop.pictures.read(tmp_path / name)
    with pytest.raises(StudioError, match="no picture that can be read"):
        shop.pictures.read(tmp_path / "nothing.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.jpg")
    with pytest.raises(StudioError, match="says nothing of how"):
        shop.pictures.read(tmp_path / "plain.jpg")


def test_twenty_at_once_each_get_theirs_and_nothing_is_left_open(shop: Shop) -> None:
    """Every order runs in a thread of its own, with a connection of its own to the database."""
    counts: dict[int, int] = {}
    failures: list[BaseException] = []

    def user(number: int) -> None:
        try:
            shown = list(shop.pictures.draw(replace(REX, seed=100 * number)))
            assert [p.order.seed for p in shown] == [100 * number, 100 * number + 1]
            counts[number] = len(shown)
        except BaseException as error:
            failures.append(error)
        finally:
            shop.database.close()

    open_files = []
    for _ in range(3):
        users = [threading.Thread(target=user, args=[number]) for number in range(20)]
        for one in users:
            one.start()
        for one in users:
            one.join(60)
        open_files.append(len(list(Path("/proc/self/fd").iterdir())))
    assert failures == [] and counts == dict.fromkeys(range(20), 2)
    assert shop.pictures.count() == 120 and shop.workshop.waiting == 0
    assert open_files[2] <= open_files[0] + 3
