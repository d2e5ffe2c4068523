"""Class images are drawn when something that shapes them is new, and only then."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from training_runs import Killed, small_config

from dora_diffusion.errors import DataError
from dora_diffusion.inference.draw import Drawing
from dora_diffusion.inference.picture import read_settings
from dora_diffusion.models import BaseModel, load_base
from dora_diffusion.training import prior
from dora_diffusion.training.prior import class_images

Make = Callable[..., list[Path]]
COUNT = 3


@pytest.fixture(scope="module")
def base() -> BaseModel:
    """One base for the whole file; a test that changes it changes it back."""
    return load_base("toybox")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seeds of the pictures drawn so far; in place of the base, each seed paints its own colour."""
    seeds_drawn: list[int] = []

    def paint(base: BaseModel, prompts: Sequence[str], seeds: Sequence[int], drawing: Drawing) -> list[Image.Image]:
        assert len(prompts) == len(seeds) <= 4
        seeds_drawn.extend(seeds)
        return [Image.new("RGB", (drawing.width or 0, drawing.height or 0), (seed % 256, 90, 90)) for seed in seeds]

    monkeypatch.setattr(prior, "draw", paint)
    return seeds_drawn


@pytest.fixture
def make(base: BaseModel, tmp_path: Path) -> Make:
    """``make(num_class_images=2, ...)``: the paths of a run's class images under those settings."""

    def make(resolution: int = 64, process: int = 0, processes: int = 1, **settings: Any) -> list[Path]:
        config = small_config(tmp_path / "run", prior={"num_class_images": COUNT, **settings})
        return class_images(base, config, resolution, lambda done, total: None, process, processes)

    return make


@contextmanager
def changed(part: torch.nn.Module) -> Iterator[None]:
    """Within the block one weight of ``part`` is another."""
    weight = list(part.parameters())[-1]
    before = weight.detach().clone()
    with torch.no_grad():
        weight.add_(0.01)
        yield
        weight.copy_(before)


# ------------------------------------------------------------------------------------------------- what is drawn when
def test_a_second_run_draws_nothing(make: Make, drawn: list[int]) -> None:
    paths = make()
    before = [path.read_bytes() for path in paths]
    assert drawn == [0, 1, 2]
    assert make() == paths
    assert drawn == [0, 1, 2]
    assert [path.read_bytes() for path in paths] == before


@pytest.mark.parametrize(
    "change",
    [
        {"class_prompt": "a photo of a blue teapot"},
        {"class_images_steps": 26},
        {"class_images_guidance": 5.5},
        {"class_images_seed": 7},
        {"resolution": 72},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_setting_draws_all_of_them_anew_and_keeps_the_old(
    make: Make, drawn: list[int], change: dict[str, Any]
) -> None:
    before = make()
    drawn.clear()
    after = make(**change)
    first = change.get("class_images_seed", 0)
    assert drawn == [first, first + 1, first + 2]
    assert not set(after) & set(before)
    drawn.clear()
    assert make() == before
    assert drawn == []


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_another_base_draws_all_of_them_anew(make: Make, drawn: list[int], base: BaseModel, part: str) -> None:
    before = make()
    drawn.clear()
    with changed(getattr(base.pipe, part)):
        assert not set(make()) & set(before)
        assert drawn == [0, 1, 2]
    drawn.clear()
    assert make() == before
    assert drawn == []


@pytest.mark.parametrize("change", ["sampler", "prediction type"])
def test_another_sampler_draws_all_of_them_anew(
    make: Make, drawn: list[int], base: BaseModel, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    from diffusers import EulerDiscreteScheduler

    before = make()
    drawn.clear()
    now = base.pipe.scheduler
    other = (
        EulerDiscreteScheduler.from_config(now.config)
        if change == "sampler"
        else now.from_config(now.config, prediction_type="epsilon")
    )
    monkeypatch.setattr(base.pipe, "scheduler", other)
    assert not set(make()) & set(before)
    assert drawn == [0, 1, 2]


@pytest.mark.parametrize(
    "change", [{"sample_batch_size": 1}, {"sample_batch_size": 2}, {"prior_loss_weight": 0.3}, {"num_class_images": 2}]
)
def test_what_does_not_shape_them_draws_nothing(make: Make, drawn: list[int], change: dict[str, Any]) -> None:
    before = make()
    drawn.clear()
    assert make(**change) == before[: change.get("num_class_images", COUNT)]
    assert drawn == []


def test_more_of_them_draw_the_missing_ones(make: Make, drawn: list[int]) -> None:
    before = make()
    drawn.clear()
    assert make(num_class_images=5)[:COUNT] == before
    assert drawn == [3, 4]


@pytest.mark.parametrize("damage", ["deleted", "cut off", "emptied", "garbage"])
def test_a_damaged_one_is_drawn_again_alone(make: Make, drawn: list[int], damage: str) -> None:
    paths = make()
    before = [path.read_bytes() for path in paths]
    if damage == "deleted":
        paths[1].unlink()
    else:
        half = before[1][: len(before[1]) // 2]
        paths[1].write_bytes({"cut off": half, "emptied": b"", "garbage": b"no picture"}[damage])
    drawn.clear()
    make()
    assert drawn == [1]
    assert [path.read_bytes() for path in paths] == before


def test_a_set_that_was_interrupted_is_completed(make: Make, drawn: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    paint = prior.draw

    def die_at_the_third(base: BaseModel, prompts: Any, seeds: Sequence[int], drawing: Drawing) -> list[Image.Image]:
        if 2 in seeds:
            raise Killed
        return paint(base, prompts, seeds, drawing)

    monkeypatch.setattr(prior, "draw", die_at_the_third)
    with pytest.raises(Killed):
        make(sample_batch_size=1)
    monkeypatch.setattr(prior, "draw", paint)
    assert drawn == [0, 1]
    assert len(make()) == COUNT
    assert drawn == [0, 1, 2]


def test_a_run_is_told_how_far_it_is(base: BaseModel, drawn: list[int], tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    config = small_config(tmp_path / "run", prior={"num_class_images": 3, "sample_batch_size": 2})
    for _ in range(2):
        class_images(base, config, 64, lambda done, total: told.append((done, total)))
    assert told == [(0, 3), (2, 3), (3, 3), (3, 3)]


# ------------------------------------------------------------------------------------------------- the user's own
def put_own(folder: Path, count: int) -> list[Path]:
    folder.mkdir()
    paths = [folder / f"own{number}.png" for number in range(count)]
    for path in paths:
        Image.new("RGB", (64, 64)).save(path)
    return paths


@pytest.mark.parametrize(("own", "seeds"), [(1, [0, 1]), (3, []), (5, [])])
def test_own_images_come_first_and_the_rest_is_drawn(
    make: Make, drawn: list[int], tmp_path: Path, own: int, seeds: list[int]
) -> None:
    given = put_own(tmp_path / "class", own)
    for _ in range(2):
        paths = make(class_data_dir=tmp_path / "class")
        assert len(paths) == COUNT
        assert paths[:own] == given[:COUNT]
        assert drawn == seeds


def test_a_folder_for_them_that_is_empty_or_new_is_filled(make: Make, drawn: list[int], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "new"):
        drawn.clear()
        assert {path.parent.parent for path in make(class_data_dir=folder)} == {folder}
        assert drawn == [0, 1, 2]


def test_own_images_that_cannot_be_read_here_are_told_not_replaced(
    make: Make, drawn: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dora_diffusion.data.photos.can_read_heic", lambda: False)
    put_own(tmp_path / "class", 1)
    (tmp_path / "class" / "phone.heic").write_bytes(b"x")
    with pytest.raises(DataError, match=r"phone\.heic.*pillow-heif"):
        make(class_data_dir=tmp_path / "class")
    assert drawn == []


# ------------------------------------------------------------------------------------------------- processes
def test_processes_share_the_work_even_when_one_is_late(make: Make, drawn: list[int]) -> None:
    """The second looks what is missing when the first is through."""
    make(process=0, processes=2, num_class_images=6)
    assert drawn == [0, 2, 4]
    paths = make(process=1, processes=2, num_class_images=6)
    assert drawn == [0, 2, 4, 1, 3, 5]
    assert all(path.is_file() for path in paths)


# ------------------------------------------------------------------------------------------------- drawn for real
def test_the_batch_size_changes_no_picture(base: BaseModel, tmp_path: Path) -> None:
    quick = {"num_class_images": 3, "class_images_steps": 2}

    def pictures(batch_size: int) -> list[np.ndarray]:
        settings = {**quick, "sample_batch_size": batch_size, "class_data_dir": tmp_path / str(batch_size)}
        config = small_config(tmp_path / "run", prior=settings)
        paths = class_images(base, config, 64, lambda done, total: None)
        assert [read_settings(path)["seed"] for path in paths] == [0, 1, 2]
        assert read_settings(paths[0])["prompt"] == "a photo of a teapot"
        return [np.asarray(Image.open(path)).astype(int) for path in paths]

    alone, together = pictures(1), pictures(3)
    for one, other in zip(alone, together, strict=True):
        assert one.shape == (64, 64, 3)
        assert np.abs(one - other).max() <= 1  # sums in another order, rounded to 8 bits
    assert np.abs(alone[0] - alone[1]).mean() > 5
