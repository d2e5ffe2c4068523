"""Time and memory before the start: from what was trained here, else from two steps."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from shop import Shop, fake_workshop

from dora_diffusion.config import TrainConfig
from dora_diffusion.errors import StudioError
from dora_diffusion.studio.estimates import Estimate
from dora_diffusion.studio.process import take
from dora_diffusion.studio.tasks.desk import Desk
from dora_diffusion.studio.tasks.planning import plan

QUICK = TrainConfig(preset="toybox-quick")


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    made = Shop(tmp_path / "home", fake_workshop(tmp_path))
    made.add_subject("cat-1")
    made.database.transaction()
    with made.database.transaction() as connection:
        connection.execute("delete from jobs")
    yield made
    made.close()


def longer(config: TrainConfig, steps: int, **run: object) -> TrainConfig:
    return config.model_copy(update={"run": config.run.model_copy(update={"max_train_steps": steps, **run})})


def test_from_earlier_trainings_here(shop: Shop) -> None:
    for seconds in (40, 60, 1000):
        shop.add_job("cat-1", total=100, step_ms=300.0, seconds=seconds, memory_gib=seconds / 100, device="CPU")
    found = shop.estimates.of(longer(QUICK, 200))
    assert found is not None and found.source == "3 earlier trainings here"
    assert found.seconds == pytest.approx(200 * 0.3 + 30), "the median of what came besides the steps"
    assert found.memory_gib == 10 and found.total_gib > 0
    assert not shop.workshop.is_running


@pytest.mark.parametrize(
    "other",
    [{"state": "failed"}, {"base": "x"}, {"resolution": 64}, {"batch": 1}, {"step_ms": None}, {"total": 6}],
    ids=str,
)
def test_other_trainings_do_not_count(shop: Shop, other: dict[str, object]) -> None:
    shop.add_job("cat-1", **{"step_ms": 300.0, "seconds": 50.0, **other})
    assert shop.estimates.of(QUICK) is None


def test_class_images_are_counted_for_a_class_that_has_none_yet(shop: Shop) -> None:
    shop.add_subject("dog-1", noun="dog")
    with shop.database.transaction() as connection:
        connection.execute("delete from jobs")
    first = {"step_ms": 500.0, "seconds": 60.0 + 30 + 48, "images": 12, "images_s": 48.0, "step": 120, "total": 120}
    shop.add_job("dog-1", **first)
    dog = QUICK.model_copy(update={"data": QUICK.data.model_copy(update={"class_noun": "dog"})})
    cup = QUICK.model_copy(update={"data": QUICK.data.model_copy(update={"class_noun": "cup"})})
    more = dog.model_copy(update={"prior": dog.prior.model_copy(update={"num_class_images": 24})})
    assert dog.prior.num_class_images == 12 and dog.run.max_train_steps == 120
    again, other = shop.estimates.of(dog), shop.estimates.of(cup)
    assert again is not None and again.seconds == pytest.approx(60 + 30), "its class images are kept"
    assert other is not None and other.seconds == pytest.approx(60 + 30 + 48)
    some = shop.estimates.of(more)
    assert some is not None and some.seconds == pytest.approx(60 + 30 + 48), "twelve are kept, twelve are missing"
    shop.add_job("dog-1", **{**first, "seconds": 90.0, "images": 0, "images_s": 0.0})
    unchanged = shop.estimates.of(dog)
    assert unchanged is not None and unchanged.seconds == pytest.approx(again.seconds)


def test_what_runs_tells_of_others_like_it(shop: Shop) -> None:
    job = shop.add_job("cat-1", state="running", started=time.time() - 40.0, attempt=1)
    status = {"state": "training", "step_ms": 500.0, "memory_gib": 0.7, "device": "CPU"}
    status |= {"images_drawn": {"count": 10, "seconds": 20.0}}
    folder = shop.home.path_of("job", job) / "run"
    folder.mkdir(parents=True)
    descriptor = take(folder.parent / "alive")
    assert descriptor is not None
    try:
        (folder / "status.json").write_text(json.dumps({**status, "step": 2}))
        assert shop.estimates.of(QUICK) is None and not shop.estimates.is_measuring(QUICK), "the first steps are slow"
        (folder / "status.json").write_text(json.dumps({**status, "step": 20}))
        found = shop.estimates.of(QUICK)
        assert found is not None and found.source == "the training that runs now"
        assert found.seconds == pytest.approx(0.5 * QUICK.run.max_train_steps + 40 - 20 - 10, abs=5)
        assert found.memory_gib == 0.7 and found.total_gib > 0
        assert shop.estimates.of(longer(QUICK, 120, train_batch_size=4)) is None, "another batch is another thing"
    finally:
        os.close(descriptor)


def test_measured_in_the_background_and_remembered(shop: Shop) -> None:
    assert not shop.estimates.is_measuring(QUICK)
    assert shop.estimates.of(QUICK) is None and shop.estimates.is_measuring(QUICK)
    until = time.monotonic() + 10
    while (found := shop.estimates.of(QUICK)) is None:
        assert time.monotonic() < until
        time.sleep(0.02)
    assert found == Estimate(4.0 + 0.5 * QUICK.run.max_train_steps, 1.5, 8.0, "a two-step measurement")
    longest = shop.estimates.of(longer(QUICK, 1000, seed=5))
    assert not shop.estimates.is_measuring(QUICK)
    assert longest is not None and longest.seconds == 504, "neither the length nor the seed is measured again"
    assert shop.estimates.of(longer(QUICK, 100, train_batch_size=4)) is None, "another batch is"
    assert not shop.workshop.is_running, "it ran in a process of its own, which is gone"


def test_nothing_is_measured_while_something_is_trained(shop: Shop) -> None:
    shop.add_job("cat-1", state="running")
    assert shop.estimates.of(QUICK) is None
    assert not shop.estimates._measuring


def test_a_training_that_begins_has_the_machine_for_itself(shop: Shop) -> None:
    shop.workshop._command[1:1] = ["-c", "import time; time.sleep(60)"]
    assert shop.estimates.of(QUICK) is None and shop.estimates._measuring
    time.sleep(0.3)
    shop.add_job("cat-1", state="starting")
    until = time.monotonic() + 5
    while shop.estimates._measuring:
        assert time.monotonic() < until
        time.sleep(0.02)
    assert not shop.estimates._failed, "it is measured when the machine is free again"


def test_a_measurement_that_fails_is_not_tried_again_and_again(tmp_path: Path) -> None:
    workshop = fake_workshop(tmp_path)
    workshop._command = [*workshop._command[:1], "-c", "raise SystemExit(1)"]
    shop = Shop(tmp_path / "home", workshop)
    assert shop.estimates.of(QUICK) is None
    until = time.monotonic() + 10
    while shop.estimates._measuring:
        assert time.monotonic() < until
        time.sleep(0.02)
    assert shop.estimates.of(QUICK) is None and not shop.estimates._measuring
    with pytest.raises(StudioError):
        shop.estimates.measure(QUICK)
    shop.close()


@pytest.mark.parametrize(
    ("estimate", "words", "fits"),
    [
        (Estimate(0.2, 0, 0, ""), "about 1 s", True),
        (Estimate(89, 7.24, 24, ""), "about 89 s, 7.2 GiB of 24 GiB", True),
        (Estimate(540, 25, 24, ""), "about 9 min, 25.0 GiB of 24 GiB", False),
        (Estimate(3 * 3600, 5, 0, ""), "about 3.0 h, 5.0 GiB", True),
    ],
)
def test_in_words(estimate: Estimate, words: str, fits: bool) -> None:
    assert (estimate.words, estimate.fits) == (words, fits)


def test_two_real_steps(tmp_path: Path) -> None:
    config = TrainConfig(preset="toybox-quick", data={"class_noun": "duck", "instance_data_dir": tmp_path / "none"})
    found = plan(Desk(), config=config.model_dump(mode="json", exclude={"preset"}))
    assert 0 < found["step_s"] < 60 and found["peak_gib"] > 0.1 and found["total_gib"] > found["peak_gib"]
    assert found["device"] == "cpu" or found["device"].startswith("cuda")
    assert not list(tmp_path.iterdir()), "nothing is written"
