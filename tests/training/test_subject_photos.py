"""Captions, buckets and masks in whole runs: what a setting changes, what a resume refuses, and the exact resume."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from train_processes import finish, flags, launched, prior_flags
from training_runs import (
    Heard,
    adapter_bytes,
    checkpoint_bytes,
    metrics,
    relative_difference,
    run_it,
    small_config,
    small_prior,
    tensors,
)

from dora_diffusion.config import DataConfig, TrainConfig
from dora_diffusion.errors import ConfigError, DataError, TrainingError
from dora_diffusion.training.batches import Batches, Prompts
from dora_diffusion.training.events import Note, RunStarted
from dora_diffusion.training.loss import Batch

SIZES = {"square": (72, 72), "wide": (120, 72), "high": (72, 108), "other": (96, 96)}  # (width, height)


@pytest.fixture
def photos(tmp_path: Path, subject_photos: Path) -> Path:
    """Four photos of three shapes, two with captions, and a mask for each."""
    folder = tmp_path / "photos"
    for place in (folder, tmp_path / "masks"):
        place.mkdir()
    studio = Image.open(subject_photos / "studio.jpg").convert("RGB")
    for number, (name, size) in enumerate(SIZES.items()):
        studio.rotate(90 * number).resize(size).save(folder / f"{name}.png")
        mask = np.zeros(size[::-1], np.uint8)
        mask[: size[1] // 2] = 255
        Image.fromarray(mask).save(tmp_path / "masks" / f"{name}.png")
    (folder / "wide.txt").write_text("{trigger} {class}, on wood, in a room, by day")
    (folder / "high.txt").write_text("{trigger} {class}, high, standing, alone")
    return folder


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Batch, list[str]]]:
    """Every batch of a run, with its samples' prompts."""
    batches: list[tuple[Batch, list[str]]] = []
    prompts: list[str] = []
    real_batch, real_conditioning = Batches.batch, Prompts.conditioning

    def conditioning(self: Prompts, wanted: list[str], framing: Tensor) -> dict[str, Tensor]:
        prompts[:] = wanted
        return real_conditioning(self, wanted, framing)

    def batch(self: Batches, step: int, micro_step: int) -> Batch:
        made = real_batch(self, step, micro_step)
        batches.append((made, list(prompts)))
        return made

    monkeypatch.setattr(Prompts, "conditioning", conditioning)
    monkeypatch.setattr(Batches, "batch", batch)
    return batches


def config(photos: Path, steps: int, data: dict[str, Any], name: str = "run", **groups: Any) -> TrainConfig:
    settings = {"instance_data_dir": photos, **data}
    run = {"sentinels": False, **groups.pop("run", {})}  # one of them draws the first batch once more
    return small_config(photos.parent / name, steps, data=settings, run=run, **{"adapter": {"rank": 1}, **groups})


Seen = list[tuple[Batch, list[str]]]


def test_each_photo_gets_its_caption(photos: Path, seen: Seen) -> None:
    """Sidecars for two, the prompt for two; a pass over the four shows each once."""
    heard = Heard()
    run_it(config(photos, 1, {}, run={"gradient_accumulation_steps": 2, "train_batch_size": 2}), heard)
    assert sorted(prompt for _, prompts in seen for prompt in prompts) == [
        "a photo of sks teapot",
        "a photo of sks teapot",
        "sks teapot, high, standing, alone",
        "sks teapot, on wood, in a room, by day",
    ]
    (started,) = heard.of(RunStarted)
    assert started.facts["captions"] == "2 in .txt files, 2 by the prompt"
    assert started.facts["photos"] == "4, prompt 'a photo of sks teapot'"
    assert not heard.of(Note) and not {"buckets", "masks"} & started.facts.keys()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"captions": "prompt", "instance_prompt": "{trigger} the {class}"}, {"sks the teapot"}),
        ({"captions": "metadata"}, {"one sks", "two sks", "three sks", "four sks"}),
        ({"caption_column": "long"}, {"long 0", "long 1", "long 2", "long 3"}),
        ({"captions": "metadata", "caption_dropout": 1.0}, {""}),
    ],
    ids=["prompt", "metadata", "column", "dropout"],
)
def test_captions_come_from_where_the_settings_say(
    photos: Path, seen: Seen, data: dict[str, Any], expected: set[str]
) -> None:
    texts = ("one", "two", "three", "four")
    rows = [
        {"file_name": f"{name}.png", "text": f"{text} {{trigger}}", "long": f"long {k}"}
        for k, (name, text) in enumerate(zip(SIZES, texts, strict=True))
    ]
    (photos / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    run_it(config(photos, 1, data, run={"train_batch_size": 4}))
    assert {prompt for _, prompts in seen for prompt in prompts} == expected


def test_shuffled_captions_reach_the_base(photos: Path, seen: Seen) -> None:
    """Tags after the first change places from step to step, and the conditioning with them."""
    for path in photos.glob("*.png"):
        path.with_suffix(".txt").write_text("sks teapot, a, b, c, d")
    run_it(config(photos, 3, {"caption_shuffle": True, "caption_keep_tags": 1}))
    prompts = [prompts[0] for _, prompts in seen]
    assert len(set(prompts)) == 3 and all(prompt.startswith("sks teapot, ") for prompt in prompts)
    hidden = [batch.conditioning["encoder_hidden_states"] for batch, _ in seen]
    assert not torch.equal(hidden[0], hidden[1])
    free = config(photos, 3, {"caption_shuffle": True}, "free")
    run_it(free)
    assert not all(prompts[0].startswith("sks teapot, ") for _, prompts in seen[3:])


def test_a_batch_has_one_shape_and_class_images_follow(photos: Path, seen: Seen) -> None:
    data = {"aspect_ratio_buckets": "64,64;48,80;80,48", "use_alpha_mask": False}
    run = {"train_batch_size": 2, "gradient_accumulation_steps": 3}
    heard = Heard()
    run_it(config(photos, 2, data, run=run, prior=small_prior(photos.parent / "class")), heard)
    shapes = [tuple(batch.latents.shape[2:]) for batch, _ in seen]
    # Two squares make one chunk of two, the other photos one chunk each: three chunks a pass, and two passes.
    assert sorted(shapes[:3]) == sorted(shapes[3:]) == [(6, 10), (8, 8), (10, 6)]
    assert all(batch.latents.shape[0] == 4 and batch.loss_weights is None for batch, _ in seen)
    (started,) = heard.of(RunStarted)
    assert started.facts["buckets"] == "1 of 48 x 80, 2 of 64 x 64, 1 of 80 x 48"


def test_automatic_buckets_are_of_the_resolution(photos: Path, seen: Seen) -> None:
    run_it(config(photos, 1, {"aspect_ratio_buckets": "auto"}, run={"gradient_accumulation_steps": 4}))
    shapes = sorted(tuple(batch.latents.shape[2:]) for batch, _ in seen)
    assert shapes == [(6, 10), (8, 8), (8, 8), (10, 6)]


@pytest.mark.parametrize("prior", [False, True], ids=["plain", "prior"])
def test_masks_are_the_batchs_weights(photos: Path, seen: Seen, prior: bool) -> None:
    """The upper half of each mask is white: rows 0 to 3 of eight count fully, the others a quarter."""
    data = {"mask_data_dir": photos.parent / "masks", "unmasked_weight": 0.25, "center_crop": True}
    groups = {"prior": small_prior(photos.parent / "class")} if prior else {}
    heard = Heard()
    run_it(config(photos, 1, data, run={"train_batch_size": 4}, **groups), heard)
    (weights,) = [batch.loss_weights for batch, _ in seen]
    assert weights is not None and weights.shape == (8 if prior else 4, 1, 8, 8) and weights.dtype == torch.float32
    for sample in weights[:4, 0]:
        torch.testing.assert_close(sample[:3], torch.ones(3, 8))
        torch.testing.assert_close(sample[5:], torch.full((3, 8), 0.25), atol=1e-3, rtol=0)
    assert torch.equal(weights[4:], torch.ones(4, 1, 8, 8) if prior else torch.ones(0, 1, 8, 8))
    assert heard.of(RunStarted)[0].facts["masks"] == f"{photos.parent / 'masks'}, 0.25 outside"


def test_alpha_masks_weigh_by_a_tenth_outside(photos: Path, seen: Seen) -> None:
    for path in photos.glob("*.png"):
        picture = Image.open(path).resize((64, 64)).convert("RGBA")
        picture.putalpha(Image.fromarray(np.kron([[255, 0], [0, 0]], np.ones((32, 32))).astype(np.uint8)))
        picture.save(path)
    run_it(config(photos, 1, {"use_alpha_mask": True}))
    (weights,) = [batch.loss_weights for batch, _ in seen]
    assert weights is not None
    torch.testing.assert_close(weights[0, 0], torch.kron(torch.tensor([[1.0, 0.1], [0.1, 0.1]]), torch.ones(4, 4)))


def test_repeats_change_the_order_alone(photos: Path, seen: Seen) -> None:
    for repeats in (1, 3):
        run_it(config(photos, 8, {"repeats": repeats, "center_crop": True}, f"run{repeats}"))
    plain, repeated = (
        [tuple(batch.conditioning["encoder_hidden_states"][0, :, 0].tolist()) for batch, _ in part]
        for part in (seen[:8], seen[8:])
    )
    assert plain != repeated and set(plain) == set(repeated)
    assert all(torch.equal(a.noise, b.noise) for (a, _), (b, _) in zip(seen[:8], seen[8:], strict=True))


def test_latents_on_the_disk_change_nothing_else(photos: Path, own_home: Path) -> None:
    run_it(config(photos, 3, {"center_crop": True}, "memory"))
    assert not (own_home / "latents").exists()
    for name in ("first", "second"):
        run_it(config(photos, 3, {"center_crop": True, "cache_latents_to_disk": True}, name))
        assert len(list((own_home / "latents").glob("*/*.safetensors"))) == 3
    first, second, plain = (adapter_bytes(photos.parent / name) for name in ("first", "second", "memory"))
    assert first == second == plain


def test_a_trigger_that_is_in_no_caption_is_told(photos: Path) -> None:
    heard = Heard()
    run_it(config(photos, 1, {"trigger": "zwx", "captions": "prompt", "instance_prompt": "a sks teapot"}), heard)
    assert [note.message[:39] for note in heard.of(Note)] == ["The trigger 'zwx' is in no caption, so "]


EVERYTHING = {
    "aspect_ratio_buckets": "64,64;48,80;80,48",
    "random_flip": True,
    "caption_dropout": 0.3,
    "caption_shuffle": True,
    "caption_keep_tags": 1,
}


@pytest.mark.parametrize("text_encoder", [False, True], ids=["frozen", "trained"])
def test_a_stopped_run_goes_on_exactly(photos: Path, text_encoder: bool) -> None:
    """Buckets, mirrors, shuffled and dropped captions, masks and class images, stopped after 2 of 4 steps."""
    data = {**EVERYTHING, "mask_data_dir": photos.parent / "masks", "cache_latents_to_disk": not text_encoder}
    groups = {
        "prior": small_prior(photos.parent / "class"),
        "run": {"train_batch_size": 2},
        "adapter": {"rank": 2, "train_text_encoder": text_encoder},
    }
    whole, parts = (config(photos, 4, data, name, **groups) for name in ("whole", "parts"))
    run_it(whole)
    assert run_it(parts, stop_after=2).step == 2
    assert run_it(parts).step == 4
    assert adapter_bytes(parts.run.output_dir) == adapter_bytes(whole.run.output_dir)
    assert checkpoint_bytes(parts.run.output_dir, 4) == checkpoint_bytes(whole.run.output_dir, 4)


@pytest.mark.slow  # its fast sibling is test_two_processes_share_the_buckets_of_one, in test_batches.py
def test_two_processes_are_one_with_twice_the_batch(photos: Path) -> None:
    """Also in buckets, where both must come to the same shape at the same time."""
    masks = photos.parent / "masks"
    given = ["--instance_data_dir", str(photos), "--max_grad_norm", "0", "--mask_data_dir", str(masks)]
    for name, value in EVERYTHING.items():
        given += [f"--{name}", *([] if value is True else [str(value)])]
    finish([*launched(2), *flags(photos.parent / "two", 4, *given, *prior_flags(photos.parent / "class"))])
    data = {**EVERYTHING, "mask_data_dir": masks}
    groups = {"prior": small_prior(photos.parent / "one class"), "optim": {"max_grad_norm": 0}}
    run_it(config(photos, 4, data, "one", adapter={"rank": 4}, run={"train_batch_size": 2}, **groups))
    ours, theirs = metrics(photos.parent / "two"), metrics(photos.parent / "one")
    assert len(ours) == len(theirs) == 4
    for name in ("loss", "instance_loss", "prior_loss"):
        assert [row[name] for row in ours] == pytest.approx([row[name] for row in theirs], rel=1e-4)
    # The means of the gradients, and not the weights: AdamW divides an entry that is almost nothing by its own size.
    means = []
    for name in ("two", "one"):
        state = tensors(photos.parent / name / "checkpoint-4" / "optimizer.safetensors")
        means.append({key: value for key, value in state.items() if key.endswith(".exp_avg")})
    assert relative_difference(*means) < 1e-4


@pytest.mark.parametrize("changed", ["captions", "masks"])
def test_a_resume_refuses_other_captions_and_masks(photos: Path, changed: str) -> None:
    masks = photos.parent / "masks"
    run_it(config(photos, 1, {"mask_data_dir": masks}))
    if changed == "captions":
        (photos / "wide.txt").write_text("something else")
    else:
        shutil.copy(masks / "square.png", masks / "other.png")
    with pytest.raises(TrainingError, match=f"cannot be resumed: {changed}: "):
        run_it(config(photos, 2, {"mask_data_dir": masks}))


def test_a_missing_mask_is_told_before_anything_is_written(photos: Path) -> None:
    (photos.parent / "masks" / "wide.png").unlink()
    with pytest.raises(DataError, match=r"wide\.png"):
        run_it(config(photos, 1, {"mask_data_dir": photos.parent / "masks"}))
    assert not (photos.parent / "run").exists()


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"caption_keep_tags": 1}, "add --caption_shuffle"),
        ({"caption_column": "long", "captions": "sidecar"}, "--captions sidecar does not read"),
        ({"mask_data_dir": "masks", "use_alpha_mask": True}, "not from both"),
        ({"unmasked_weight": 0.5}, "unmasked_weight needs masks"),
        ({"cache_latents": False, "cache_latents_to_disk": True}, "which is off"),
        ({"caption_dropout": 1.5}, "caption_dropout must be less than or equal to 1"),
        ({"repeats": 0}, "repeats must be"),
        ({"captions": "sidecars"}, "captions must be 'auto', 'sidecar', 'metadata' or 'prompt', got 'sidecars'"),
    ],
)
def test_a_setting_without_effect_is_refused(data: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        DataConfig(**data)
    assert told in str(caught.value)


def test_a_class_that_is_not_named_cannot_be_filled_in() -> None:
    assert DataConfig(class_noun="dog").fill("{class} {trigger} {x}") == "dog sks {x}"
    assert TrainConfig(data=DataConfig(class_noun="dog"), prior={"class_prompt": "one {class}"}).class_prompt() == (
        "one dog"
    )
    with pytest.raises(ConfigError, match="needs a class noun"):
        DataConfig(instance_prompt="a {class}").prompt()
