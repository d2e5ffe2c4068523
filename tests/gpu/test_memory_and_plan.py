"""On a real GPU: parts that leave, the plan against what was used, a real lack of memory, attention by the clock."""

from pathlib import Path

import pytest
import torch

from dora_diffusion.config import TrainConfig
from dora_diffusion.machine import GIB
from dora_diffusion.models import choose_attention, load_base
from dora_diffusion.models.attention import FLASH, SDPA, attention_shapes, obstacle
from dora_diffusion.training import Event, preview, train
from dora_diffusion.training.events import Note, Planned, PreviewReady, StepDone
from dora_diffusion.training.memory import Parts

pytestmark = pytest.mark.gpu


def config(folder: Path, photos: Path, steps: int, **run: object) -> TrainConfig:
    return TrainConfig(
        data={"instance_data_dir": photos, "class_noun": "teapot", "center_crop": True},
        run={"output_dir": folder, "max_train_steps": steps, "mixed_precision": "bf16", **run},
    )


def test_idle_parts_leave_and_are_back_for_previews(
    tmp_path: Path, subject_photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, str, str]] = []
    made: list[Parts] = []
    init = Parts.__init__

    def kept(self: Parts, *arguments: object) -> None:
        init(self, *arguments)
        made.append(self)
        seen.append(("made", *where()))

    def where() -> tuple[str, str]:
        parts = [*made[0]._idle.values()]
        return tuple(str(next(part.parameters()).device.type) for part in parts)

    draw = preview.draw_previews
    monkeypatch.setattr(Parts, "__init__", kept)
    monkeypatch.setattr(
        "dora_diffusion.training.run.draw_previews",
        lambda *given: (seen.append(("preview", *where())), draw(*given))[1],
    )
    heard: list[Event] = []

    def listen(event: Event) -> None:
        heard.append(event)
        if isinstance(event, StepDone):
            seen.append(("step", *where()))

    how = {"validation_prompt": ["sks teapot"], "validation_steps": 1, "num_validation_images": 1}
    train(config(tmp_path / "run", subject_photos, 2, **how), listen)
    away, here = ("cpu", "cpu"), ("cuda", "cuda")
    assert seen == [("made", *here), *[("step", *away), ("preview", *here)] * 2]
    assert len([event for event in heard if isinstance(event, PreviewReady)]) == 2


def test_the_plan_is_within_a_tenth_of_what_the_run_used(tmp_path: Path, subject_photos: Path) -> None:
    plans: list[Planned] = []
    train(config(tmp_path / "run", subject_photos, 60), lambda e: plans.append(e) if isinstance(e, Planned) else None)
    assert plans[0].peak_gib == pytest.approx(torch.cuda.max_memory_allocated() / GIB, rel=0.1)


def test_a_real_lack_of_memory_is_got_over(tmp_path: Path, subject_photos: Path) -> None:
    """A limit that a batch of 64 does not fit under without checkpointing."""
    train(config(tmp_path / "large", subject_photos, 2, train_batch_size=64))
    large = torch.cuda.max_memory_allocated()
    train(config(tmp_path / "small", subject_photos, 2, train_batch_size=64, gradient_checkpointing=True))
    small = torch.cuda.max_memory_allocated()
    assert small < large
    torch.cuda.empty_cache()
    whole = torch.cuda.get_device_properties(0).total_memory
    notes: list[str] = []
    try:
        torch.cuda.set_per_process_memory_fraction((small + large) / 2 / whole)
        listen = lambda event: notes.append(event.message) if isinstance(event, Note) else None  # noqa: E731
        train(config(tmp_path / "run", subject_photos, 3, train_batch_size=64, auto_memory=True), listen)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert any("ran out of memory and is done again; from now on with" in note for note in notes)


def test_auto_measures_and_flash_agrees_with_sdpa() -> None:
    base = load_base("toybox", dtype=torch.bfloat16).to("cuda")
    assert obstacle(FLASH, attention_shapes(base.unet), base.device, base.dtype) is None
    chosen = choose_attention(base.unet, "auto")
    assert chosen.split()[0] in ("sdpa", "flash", "xformers") and "sdpa " in chosen and chosen.endswith(" ms)")
    assert obstacle(FLASH, attention_shapes(base.unet), base.device, torch.float32) is not None
    assert SDPA.missing(base.device, torch.float32) is None
