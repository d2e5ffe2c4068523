"""``train_text_encoder_frac``: from that step on the text encoder's adapters stay as they are, to the last bit."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from training_runs import (
    PHOTOS,
    PREDICTION,
    adapter_bytes,
    checkpoint_bytes,
    run_it,
    small_config,
    small_prior,
    tensors,
)

from dora_diffusion.config import OptimConfig, TrainConfig
from dora_diffusion.models import BaseModel
from dora_diffusion.registry import OPTIMIZERS
from dora_diffusion.training.stepper import Stepper

STEPS = 4


def config_of(folder: Path, optimizer: str = "adamw", frac: float = 0.5, **optim: object) -> TrainConfig:
    rate = 1.0 if optimizer == "prodigy" else 1e-3
    return small_config(
        folder,
        STEPS,
        adapter={"train_text_encoder": True},
        optim={"optimizer": optimizer, "learning_rate": rate, "train_text_encoder_frac": frac, **optim},
        run={"checkpointing_steps": 1, "checkpoints_total_limit": None},
    )


def after(folder: Path, step: int, component: str) -> dict[str, Tensor]:
    kept = tensors(folder / f"checkpoint-{step}" / "adapter.safetensors")
    return {name: value for name, value in kept.items() if name.startswith(component)}


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> list[bool]:
    return [torch.equal(ours[name], theirs[name]) for name in theirs]


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_it_learns_before_and_does_not_drift_after(optimizer: str, tmp_path: Path) -> None:
    """Neither by decay nor by momentum, while the UNet learns on."""
    run_it(config_of(tmp_path, optimizer, adam_weight_decay=0.1))
    for step in (1, 2):
        before = after(tmp_path, step - 1, "text_encoder") if step > 1 else {}
        assert not any(same(after(tmp_path, step, "text_encoder"), before))
    for step in (3, 4):
        assert all(same(after(tmp_path, step, "text_encoder"), after(tmp_path, 2, "text_encoder")))
        assert not any(same(after(tmp_path, step, "unet"), after(tmp_path, step - 1, "unet")))


@pytest.mark.parametrize("stop_at", [1, 2, 3], ids=["before", "at the boundary", "after"])
def test_a_run_resumed_on_either_side_ends_with_the_same_bytes(
    stop_at: int, tmp_path: Path, whole: Callable[[], Path]
) -> None:
    run_it(config_of(tmp_path), stop_after=stop_at)
    run_it(config_of(tmp_path))
    assert adapter_bytes(tmp_path) == adapter_bytes(whole())
    assert checkpoint_bytes(tmp_path, STEPS) == checkpoint_bytes(whole(), STEPS)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    folder = tmp_path_factory.mktemp("whole")
    run_it(config_of(folder))
    return lambda: folder


@pytest.mark.parametrize("frac", [0.0, 1.0])
def test_never_and_always(frac: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_it(config_of(tmp_path, frac=frac))
    moved = not all(same(after(tmp_path, STEPS, "text_encoder"), after(tmp_path, 1, "text_encoder")))
    assert moved is (frac == 1)
    assert (float(after(tmp_path, STEPS, "text_encoder")["text_encoder.B"].abs().sum()) > 0) is (frac == 1)


def test_no_gradient_is_computed_for_it_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And none counts in the norm that gradients are clipped to."""
    sizes: list[list[float]] = []
    real = Stepper.step

    def watched(stepper: Stepper) -> object:
        losses = real(stepper)
        buffers = stepper._progress.adapter.buffers
        text = [buffer.parameter.grad for buffer in buffers if buffer.component == "text_encoder"]
        sizes.append([float(gradient.abs().sum()) for gradient in text if gradient is not None])
        return losses

    monkeypatch.setattr(Stepper, "step", watched)
    run_it(config_of(tmp_path))
    assert [len(step) for step in sizes] == [3] * STEPS  # the buffers keep their permanent gradients
    assert [sum(step) > 0 for step in sizes] == [True, True, False, False]


@pytest.mark.parametrize(("frac", "steps", "expected"), [(0.5, 7, 4), (0.29, 100, 29), (0.0, 9, 0), (1.0, 9, 9)])
def test_the_boundary_is_the_nearest_step(frac: float, steps: int, expected: int) -> None:
    assert OptimConfig(train_text_encoder_frac=frac).text_encoder_steps(steps) == expected


def captioned(folder: Path) -> Path:
    """The teapot's photos, each with a caption of its own."""
    for number, photo in enumerate(sorted(PHOTOS.glob("*.jpg"))):
        shutil.copy(photo, folder)
        (folder / photo.name).with_suffix(".txt").write_text(f"a photo of sks teapot {'in the red snow'[: 3 * number]}")
    return folder


@pytest.mark.parametrize("prior", ["none", "images", "prediction"])
def test_what_stands_still_is_encoded_once_and_ends_in_the_same_bytes(
    prior: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five captions in batches of two: the same two together are encoded once, from the boundary on."""
    photos, steps = captioned(tmp_path_factory.mktemp("photos")), 14
    how = {"images": small_prior(tmp_path / "class"), "prediction": PREDICTION, "none": {}}[prior]

    def run(folder: Path) -> list[tuple[str, ...]]:
        encoded: list[tuple[str, ...]] = []
        real = BaseModel.encode_prompts

        def counting(base: BaseModel, prompts: list[str]) -> dict[str, Tensor]:
            encoded.append(tuple(prompts))
            return real(base, prompts)

        with monkeypatch.context() as patch:
            patch.setattr(BaseModel, "encode_prompts", counting)
            run_it(
                small_config(
                    folder,
                    steps,
                    data={"instance_data_dir": photos},
                    adapter={"train_text_encoder": True, "rank": 2},
                    prior=how,
                    optim={"train_text_encoder_frac": 2 / steps},
                    run={"train_batch_size": 2, "sentinels": False},
                )
            )
        return encoded

    kept = run(tmp_path / "kept")
    with monkeypatch.context() as patch:
        patch.setattr(Stepper, "_text_encoders_stand_still", lambda stepper: None)
        every_step = run(tmp_path / "every step")
    after = (steps - 2) * (2 if prior == "prediction" else 1)  # calls: a batch's captions, and the class prompt
    still = every_step[-after:]
    assert sorted(kept[len(every_step) - after :]) == sorted(set(still)) and len(set(still)) < len(still)
    assert adapter_bytes(tmp_path / "kept") == adapter_bytes(tmp_path / "every step")
    assert checkpoint_bytes(tmp_path / "kept", steps) == checkpoint_bytes(tmp_path / "every step", steps)
