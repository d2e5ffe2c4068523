"""Grids: what is drawn, what is refused before any work, and the picture that is saved."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from shop import Shop, fake_workshop

from dora_diffusion.errors import StudioError
from dora_diffusion.studio.comparisons import KEPT, numbers
from dora_diffusion.studio.grid_picture import GAP, LABEL, MARGIN, PAPER, grid_picture
from dora_diffusion.studio.orders import Order

REX = Order(subject_id="dog-1", prompt="a photo of <Rex>", num_inference_steps=2, seed=7, num_images=4)


@pytest.fixture
def shop(tmp_path: Path):
    adapter = tmp_path / "adapter.safetensors"
    adapter.touch()
    made = Shop(tmp_path / "home", fake_workshop(tmp_path), **{"dog-1": adapter})
    for step in (20, 40):
        made.steps["job-1", step] = adapter
    yield made
    made.close()


def test_base_against_subject(shop: Shop) -> None:
    grid = shop.comparisons.plan("base", REX)
    assert grid.columns == ("base", "with the subject") and grid.rows == ("seed 7",)
    assert [(c.order.strength, c.order.seed, c.order.subject_id) for c in grid.cells] == [
        (0, 7, "dog-1"),
        (1, 7, "dog-1"),
    ]


def test_strengths_by_seeds(shop: Shop) -> None:
    grid = shop.comparisons.plan("strengths", REX, [0, 0.4, 1.2], seeds=[3.0, 4.0])
    assert grid.columns == ("strength 0", "strength 0.4", "strength 1.2") and grid.rows == ("seed 3", "seed 4")
    assert [(c.row, c.column, c.order.seed, c.order.strength) for c in grid.cells] == [
        (0, 0, 3, 0),
        (0, 1, 3, 0.4),
        (0, 2, 3, 1.2),
        (1, 0, 4, 0),
        (1, 1, 4, 0.4),
        (1, 2, 4, 1.2),
    ]


def test_seeds_and_checkpoints(shop: Shop) -> None:
    seeds = shop.comparisons.plan("seeds", REX, [1.0, 2.0, 2.0])
    assert seeds.columns == ("seed 1", "seed 2") and [c.order.seed for c in seeds.cells] == [1, 2]
    steps = shop.comparisons.plan("checkpoints", replace(REX, job_id="job-1"), [20.0, 40.0])
    assert steps.columns == ("step 20", "step 40") and [c.order.step for c in steps.cells] == [20, 40]
    base = shop.comparisons.plan("seeds", Order(prompt="a castle"), [1, 2])
    assert {c.order.subject_id for c in base.cells} == {None}


def test_a_random_seed_is_the_same_in_all_columns(shop: Shop) -> None:
    grid = shop.comparisons.plan("strengths", replace(REX, seed=-1), [0, 1])
    assert len({c.order.seed for c in grid.cells}) == 1 and grid.cells[0].order.seed >= 0


@pytest.mark.parametrize(
    ("mode", "order", "values", "seeds", "says"),
    [
        ("strengths", REX, [k / 10 for k in range(10)], [1, 2, 3, 4], "10 x 4 = 40 pictures; at most 36"),
        ("seeds", REX, range(37), (), "37 x 1 = 37 pictures"),
        ("seeds", REX, [], (), "Which seeds"),
        ("strengths", REX, [0, 2], (), "Strength lies between 0 and 1.5, got 2"),
        ("strengths", REX, [float("nan")], (), "are numbers"),
        ("seeds", REX, [1.5], (), "whole number"),
        ("seeds", REX, ["x"], (), "are numbers"),
        ("checkpoints", replace(REX, job_id="job-1"), [30], (), "no step 30"),
        ("checkpoints", REX, [20], (), "of which training"),
        ("strengths", replace(REX, subject_id=None), [0, 1], (), "of which subject"),
        ("colours", REX, [1], (), "no comparison 'colours'"),
        ("base", replace(REX, prompt=""), (), (), "Write what"),
        ("base", REX, (), ["x"], "whole number"),
    ],
)
def test_refused_before_any_work(shop: Shop, mode: str, order: Order, values, seeds, says: str) -> None:
    with pytest.raises(StudioError, match=says):
        shop.comparisons.plan(mode, order, values, seeds)  # type: ignore[arg-type]
    assert not shop.workshop.is_running


def test_a_seed_left_to_chance_is_the_same_in_its_whole_row(shop: Shop) -> None:
    grid = shop.comparisons.plan("strengths", REX, [0, 0.5, 1], [-1, 2])
    chosen, given = ({cell.order.seed for cell in grid.cells if cell.row == row} for row in (0, 1))
    assert len(chosen) == 1 and min(chosen) >= 0 and given == {2}
    assert grid.rows == (f"seed {chosen.pop()}", "seed 2")
    grid = shop.comparisons.plan("seeds", REX, [-1, 2])
    assert grid.columns == tuple(f"seed {cell.order.seed}" for cell in grid.cells) and grid.cells[0].order.seed >= 0


def test_cost_is_told_before(shop: Shop) -> None:
    assert "known after the first" in shop.comparisons.plan("base", REX).cost
    list(shop.comparisons.draw(shop.comparisons.plan("base", REX)))
    assert shop.comparisons.plan("base", REX).cost == "2 pictures, about 2 s"
    long = replace(REX, num_inference_steps=100)
    assert shop.comparisons.plan("strengths", long, [0, 0.5, 1], [1, 2]).cost == "6 pictures, about 5 min"


def test_drawn_cells_come_one_by_one_and_are_saved_as_one_picture(shop: Shop) -> None:
    grid = shop.comparisons.plan("strengths", replace(REX, width=128, height=64), [0, 0.5, 1], [1, 2])
    done: list[tuple[int, int]] = []
    with pytest.raises(StudioError, match="Nothing of this"):
        shop.comparisons.save(grid)
    cells = list(shop.comparisons.draw(grid, lambda k, of: done.append((k, of))))
    assert done == [(k, 6) for k in range(1, 7)]
    assert all(cell.path.is_file() and cell.thumb.is_file() for cell in cells)  # type: ignore[union-attr]
    file = shop.comparisons.save(grid)
    assert file.is_relative_to(shop.home.media / "grids")
    page = Image.open(file)
    assert page.width == MARGIN + LABEL + 3 * (128 + GAP) - GAP + MARGIN
    # The middle of each cell has the colour of its seed and strength.
    for cell in cells:
        x = MARGIN + LABEL + cell.column * (128 + GAP) + 64
        y = page.height - MARGIN - 32 - (1 - cell.row) * (64 + GAP)
        assert page.getpixel((x, y)) == (cell.order.seed, round(100 * cell.order.strength), 0)
    assert shop.pictures.count() == 0, "cells are no pictures of the history"


def test_stopped_it_keeps_the_cells_that_were_drawn(shop: Shop) -> None:
    grid, stop = shop.comparisons.plan("seeds", REX, [1, 2, 3]), threading.Event()
    cells = []
    for cell in shop.comparisons.draw(grid, stop=stop):
        cells.append(cell)
        stop.set()
    assert len(cells) == 1 and shop.comparisons.save(grid).is_file()


def test_old_grids_go(shop: Shop) -> None:
    for k in range(KEPT + 5):
        (shop.home.media / "grids" / f"20200101-0000{k:02d}-abcdef").mkdir(parents=True)
    grid = shop.comparisons.plan("base", REX)
    list(shop.comparisons.draw(grid))
    left = sorted(path.name for path in (shop.home.media / "grids").iterdir())
    assert len(left) == KEPT and left[-1] == grid.id


def test_headers_are_there_and_small_pictures_are_not_blown_up() -> None:
    page = grid_picture(["seed 1"], ["base", "x" * 200], {(0, 0): Image.new("RGB", (32, 32), (255, 0, 0))}, "title")
    colours = page.getcolors(100_000)
    assert colours is not None and dict((c, n) for n, c in colours)[(255, 0, 0)] == 32 * 32
    plain = grid_picture([""], ["base"], {(0, 0): Image.new("RGB", (32, 32), (255, 0, 0))})
    head = plain.crop((0, 0, plain.width, MARGIN + 20))
    assert head.getcolors(10_000) != [(head.width * head.height, PAPER)], "the header is written"
    assert plain.width < page.width


def test_a_large_grid_is_made_smaller() -> None:
    picture = Image.new("RGB", (1536, 1536))
    page = grid_picture([""] * 6, ["a"] * 6, {(r, c): picture for r in range(6) for c in range(6)})
    assert page.width * page.height < 26_000_000


@pytest.mark.parametrize(
    ("text", "found"),
    [("0, 0.4,1.2", [0, 0.4, 1.2]), ("1 2;3\n4", [1, 2, 3, 4]), ("", []), ("-1 .5 +2.", [-1, 0.5, 2])],
)
def test_numbers_as_people_type_them(text: str, found: list[float]) -> None:
    assert numbers(text) == found


@pytest.mark.parametrize("text", ["a", "1e9", "nan", "1,,x", "0x10", "9" * 5000, "1/2"])
def test_words_that_are_no_numbers(text: str) -> None:
    with pytest.raises(StudioError, match="with commas between"):
        numbers(text)
