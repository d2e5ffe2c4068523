"""What a run leaves for people: previews that carry their settings, a model card, and a row a step."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from training_runs import Heard, adapter_bytes, metrics, run_it, small_config, small_prior

from dora_diffusion.adapters import inject_state
from dora_diffusion.formats import load_adapter
from dora_diffusion.inference.draw import Drawing, draw
from dora_diffusion.inference.picture import read_settings
from dora_diffusion.models import load_base
from dora_diffusion.training import preview
from dora_diffusion.training.events import Finished, PreviewReady, RunStarted, Saved, StepDone
from dora_diffusion.training.hardware import keep_freed_memory

PROMPTS = ["a photo of sks teapot", "sks teapot: [on] a beach"]
QUICK = Drawing(num_inference_steps=2, height=64, width=64)


@pytest.fixture(scope="module")
def with_previews(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Heard]:
    """The finished run again, with two previews of two prompts at steps 2 and 4, and what it said."""
    folder, heard = tmp_path_factory.mktemp("previews") / "run", Heard()
    how = {"validation_prompt": PROMPTS, "validation_steps": 2, "num_validation_images": 2, "checkpointing_steps": 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preview, "PREVIEW", QUICK)
        run_it(small_config(folder, 4, run=how), heard)
    return folder, heard


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


# ------------------------------------------------------------------------------------------------- previews
def test_previews_come_every_so_many_steps_with_the_same_seeds(with_previews: tuple[Path, Heard]) -> None:
    folder, heard = with_previews
    expected = [f"step-{step:06d}-{prompt:02d}-{seed}.png" for step in (2, 4) for prompt in (0, 1) for seed in (0, 1)]
    assert sorted(path.name for path in (folder / "samples").iterdir()) == expected
    told = heard.of(PreviewReady)
    assert [event.step for event in told] == [2, 4]
    assert [path.name for event in told for path in event.paths] == expected


def test_a_preview_carries_the_settings_it_was_drawn_with(with_previews: tuple[Path, Heard]) -> None:
    settings = read_settings(with_previews[0] / "samples" / "step-000004-01-1.png")
    expected = {
        "prompt": PROMPTS[1],
        "seed": 1,
        "step": 4,
        "num_inference_steps": 2,
        "guidance_scale": 3.0,
        "sampler": "DDIMScheduler",
        "width": 64,
        "height": 64,
        "model": "toybox",
        "adapter": "run",
        "strength": 1.0,
    }
    assert settings == expected


def test_the_settings_are_true(with_previews: tuple[Path, Heard]) -> None:
    """The last preview is drawn again from its settings and the adapter file."""
    folder, _ = with_previews
    path = folder / "samples" / "step-000004-00-1.png"
    settings, base = read_settings(path), load_base("toybox")
    inject_state(base, load_adapter(folder), base.name)
    (again,) = draw(base, [settings["prompt"]], [settings["seed"]], QUICK)
    assert np.abs(np.asarray(again).astype(int) - pixels(path)).max() <= 1


def test_previews_show_the_adapter_as_it_is(with_previews: tuple[Path, Heard]) -> None:
    folder, _ = with_previews
    assert np.abs(
        pixels(folder / "samples/step-000002-00-0.png") - pixels(folder / "samples/step-000004-00-0.png")
    ).any()


def test_previews_do_not_disturb_the_training(with_previews: tuple[Path, Heard], finished_run: Path) -> None:
    for file in ("adapter.safetensors", "optimizer.safetensors"):
        ours, theirs = (folder / "checkpoint-3" / file for folder in (with_previews[0], finished_run))
        assert ours.read_bytes() == theirs.read_bytes()


# ------------------------------------------------------------------------------------------------- the card
def header(folder: Path) -> dict[str, object]:
    _, text, _ = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    parsed = yaml.safe_load(text)
    assert isinstance(parsed, dict)
    return parsed


def test_the_card_names_base_and_trigger_and_shows_the_last_previews(with_previews: tuple[Path, Heard]) -> None:
    folder, _ = with_previews
    assert header(folder) == {
        "base_model": "toybox",
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": ["text-to-image", "diffusers", "dreambooth", "dora", "stable-diffusion"],
        "instance_prompt": "a photo of sks teapot",
    }
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert "Write `sks` in a prompt" in text
    assert "A dora adapter for toybox" in text
    assert "Trained for 4 steps of 1 x 1 photos at 64 px" in text
    linked = [line.partition("(samples/")[2].rstrip(")") for line in text.splitlines() if line.startswith("![")]
    assert linked == [f"step-000004-{prompt:02d}-{seed}.png" for prompt in (0, 1) for seed in (0, 1)]
    assert all((folder / "samples" / name).is_file() for name in linked)


def test_a_run_without_previews_has_a_card(finished_run: Path) -> None:
    assert header(finished_run)["base_model"] == "toybox"
    assert "![" not in (finished_run / "README.md").read_text(encoding="utf-8")


def test_a_prompt_that_yaml_would_misread_stays_itself(tmp_path: Path) -> None:
    prompt = "a 'photo': of \"sks\" #1 {teapot} — čajník\\"
    run_it(small_config(tmp_path / "run", 1, data={"instance_prompt": prompt}, adapter={"rank": 1}))
    assert header(tmp_path / "run")["instance_prompt"] == prompt


def test_previews_of_a_prompt_that_is_no_longer_asked_for_are_shown_with_it(
    with_previews: tuple[Path, Heard], copy_of_finished: Callable[[str], Path]
) -> None:
    """Previews may be switched off between two parts of a run."""
    folder = copy_of_finished("run")
    (folder / "samples").mkdir()
    old = with_previews[0] / "samples" / "step-000002-01-0.png"
    (folder / "samples" / old.name).write_bytes(old.read_bytes())
    run_it(small_config(folder, 4))
    assert f"![{PROMPTS[1]}](samples/{old.name})" in (folder / "README.md").read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------------------- metrics and events
def test_a_row_a_step(with_previews: tuple[Path, Heard]) -> None:
    folder, heard = with_previews
    rows = metrics(folder)
    assert [list(row) for row in rows] == [["step", "loss", "instance_loss", "prior_loss", "lr", "step_ms"]] * 4
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    for row, event in zip(rows, heard.of(StepDone), strict=True):
        assert row["prior_loss"] is None
        assert row["loss"] == row["instance_loss"] == event.loss > 0
        assert row["lr"] == 1e-3
        assert 0 < row["step_ms"] < 60_000
    assert len({row["loss"] for row in rows}) == 4
    assert [event.seconds_left > 0 for event in heard.of(StepDone)] == [True, True, True, False]


def test_the_loss_is_the_sum_of_its_terms(tmp_path: Path) -> None:
    prior = {**small_prior(tmp_path / "class"), "prior_loss_weight": 0.25}
    run_it(small_config(tmp_path / "run", 2, adapter={"rank": 1}, prior=prior))
    for row in metrics(tmp_path / "run"):
        assert row["prior_loss"] > 0
        assert row["loss"] == pytest.approx(row["instance_loss"] + 0.25 * row["prior_loss"], rel=1e-5)


def test_the_rate_of_a_row_is_the_one_its_step_was_taken_at(tmp_path: Path) -> None:
    warm_up = {"learning_rate": 1e-3, "lr_scheduler": "constant_with_warmup", "lr_warmup_steps": 2}
    config = small_config(tmp_path / "run", 4, adapter={"rank": 1}, optim=warm_up)
    run_it(config, stop_after=3)
    run_it(config)
    assert [row["lr"] for row in metrics(tmp_path / "run")] == pytest.approx([0, 5e-4, 1e-3, 1e-3])


def test_events_come_in_order(with_previews: tuple[Path, Heard]) -> None:
    folder, heard = with_previews
    kinds = [type(event).__name__ for event in heard]
    saved = ["Saving", "Saved"]
    step, previewed = ["StepDone", *saved], ["StepDone", "PreviewReady", *saved]
    assert kinds == ["RunStarted", *step, *previewed, *step, *previewed, "Finished"]
    (started,) = heard.of(RunStarted)
    assert (started.output_dir, started.step, started.max_train_steps) == (folder, 0, 4)
    assert [event.path for event in heard.of(Saved)] == [folder / f"checkpoint-{step}" for step in (1, 2, 3, 4)]
    (finished,) = heard.of(Finished)
    assert (finished.step, finished.stopped) == (4, False)
    assert finished.path.read_bytes() == adapter_bytes(folder)


def test_the_allocator_setting_is_asked_of_glibc_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """And where there is none, nothing happens."""
    import ctypes

    asked: list[tuple[int, int]] = []

    class Library:
        @staticmethod
        def mallopt(parameter: int, value: int) -> int:
            asked.append((parameter, value))
            return 1

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Library)
    keep_freed_memory()
    assert asked == [(-1, 2**30), (-3, 2**30)]

    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    keep_freed_memory()
