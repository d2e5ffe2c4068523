"""Every setting changes something that can be seen: what that is stands beside its name, and a run proves it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from small_models import small_pipeline
from test_loss_options import OBSERVED as OF_THE_LOSS
from test_optim_settings import CHANGES as OF_THE_OPTIMIZER
from training_runs import PHOTOS, Heard, metrics, run_it, small_config, tensors

from dora_diffusion.config import TrainConfig
from dora_diffusion.config.fields import walk
from dora_diffusion.errors import DoraError
from dora_diffusion.formats import WEIGHTS_NAME
from dora_diffusion.training.events import ClassImages, Planned, RunStarted

TESTS = Path(__file__).parents[1]
Groups = dict[str, dict[str, Any]]


@dataclass
class Ran:
    """A run that is over: its folder, what it told, and how it was refused, if it was."""

    folder: Path
    heard: Heard
    refused: str = ""


def weights(ran: Ran) -> list[bytes]:
    """The adapter that came out."""
    assert not ran.refused, ran.refused
    found = tensors(ran.folder / WEIGHTS_NAME)
    return [name.encode() + found[name].numpy().tobytes() for name in sorted(found)]


def files(ran: Ran) -> list[str]:
    """What lies in the run's folder."""
    return sorted(str(path.relative_to(ran.folder)) for path in ran.folder.rglob("*"))


def facts(ran: Ran) -> Any:
    """What is told at the start."""
    return ran.heard.of(RunStarted)[0].facts


def steps(ran: Ran) -> list[int]:
    """The steps that were logged."""
    return [row["step"] for row in metrics(ran.folder)]


def plans(ran: Ran) -> int:
    """How often a plan was told."""
    return len(ran.heard.of(Planned))


def counts(ran: Ran) -> list[int]:
    """How many class images had been made, each time it was told."""
    return [event.done for event in ran.heard.of(ClassImages)]


def kept_encodings(ran: Ran) -> int:
    """How many encodings lie on the disk."""
    return len(list((ran.folder.parent / "home" / "latents").rglob("*.*")))


def rounding(ran: Ran) -> bool:
    """Whether a GPU may round float32 products."""
    return bool(torch.backends.cuda.matmul.allow_tf32)


PRIOR = {"with_prior_preservation": True, "num_class_images": 3, "class_images_steps": 2}
TEXT = {"train_text_encoder": True, "targets": "attn1"}
PREVIEWS = {"validation_prompt": ["a toy"], "num_validation_images": 1}
TAGS = {"captions": "sidecar"}

# Name: (settings of both runs, another value, what must then differ); angle brackets hold folders of ``place``.
SEEN: dict[str, tuple[Groups, Any, Callable[[Ran], Any]]] = {
    "model.pretrained_model_name_or_path": ({}, "<other>", weights),
    "model.pretrained_vae_model_name_or_path": ({}, "<other>/vae", weights),
    "model.variant": ({"model": {"pretrained_model_name_or_path": "<variants>"}}, "fp16", weights),
    "model.prediction_type": ({}, "v_prediction", weights),
    "model.rescale_betas_zero_snr": ({"model": {"prediction_type": "v_prediction"}}, True, weights),
    "model.attention": ({}, "xformers", facts),
    "data.instance_data_dir": ({}, "<tagged>", weights),
    "data.instance_prompt": ({}, "a picture of sks", weights),
    "data.trigger": ({}, "bop", weights),
    "data.class_noun": ({}, "mug", weights),
    "data.resolution": ({}, 96, weights),
    "data.aspect_ratio_buckets": ({"data": {"instance_data_dir": "<tagged>"}}, "64,96;64,64", weights),
    "data.repeats": ({"run": {"train_batch_size": 4}}, 3, weights),
    "data.captions": ({"data": {"instance_data_dir": "<tagged>"}}, "prompt", weights),
    "data.caption_column": ({"data": {"instance_data_dir": "<tagged>"}}, "words", weights),
    "data.caption_dropout": ({}, 0.9, weights),
    "data.caption_shuffle": ({"data": {"instance_data_dir": "<tagged>", **TAGS}}, True, weights),
    "data.caption_keep_tags": (
        {"data": {"instance_data_dir": "<tagged>", **TAGS, "caption_shuffle": True}, "run": {"train_batch_size": 4}},
        3,
        weights,
    ),
    "data.mask_data_dir": ({}, "<masks>", weights),
    "data.use_alpha_mask": ({"data": {"instance_data_dir": "<cut out>"}}, True, weights),
    "data.unmasked_weight": ({"data": {"mask_data_dir": "<masks>"}}, 0.7, weights),
    "data.center_crop": ({"data": {"instance_data_dir": "<tagged>"}}, True, weights),
    "data.random_flip": ({"run": {"train_batch_size": 4}}, True, weights),
    "data.cache_latents_to_disk": ({"data": {"center_crop": True}}, True, kept_encodings),
    "adapter.kind": ({}, "lora", weights),
    "adapter.rank": ({}, 2, weights),
    "adapter.alpha": ({}, 1.0, weights),
    "adapter.targets": ({}, "attn-mlp", weights),
    "adapter.train_text_encoder": ({}, True, weights),
    "adapter.text_encoder_targets": ({"adapter": TEXT}, "attn-mlp", weights),
    "adapter.rank_pattern": ({}, ["attn2=2"], weights),
    "adapter.alpha_pattern": ({}, ["attn2=1"], weights),
    "adapter.new_tokens": ({}, 2, weights),
    "adapter.new_tokens_init": ({"adapter": {"new_tokens": 1}}, "a red mug", weights),
    "adapter.norm_grad": ({}, "full", weights),
    "prior.with_prior_preservation": ({"prior": {**PRIOR, "with_prior_preservation": False}}, True, weights),
    "prior.prior_kind": ({"prior": PRIOR}, "prediction", weights),
    "prior.class_prompt": ({"prior": PRIOR}, "a thing", weights),
    "prior.class_data_dir": ({"prior": PRIOR}, "<photos>", counts),
    "prior.num_class_images": ({"prior": PRIOR}, 2, counts),
    "prior.prior_loss_weight": ({"prior": PRIOR}, 0.1, weights),
    "prior.sample_batch_size": ({"prior": PRIOR}, 1, counts),
    "prior.class_images_steps": ({"prior": PRIOR}, 3, weights),
    "prior.class_images_guidance": ({"prior": PRIOR}, 1.0, weights),
    "prior.class_images_seed": ({"prior": PRIOR}, 9, weights),
    "run.seed": ({}, 1, weights),
    "run.max_train_steps": ({}, 3, steps),
    "run.train_batch_size": ({}, 2, weights),
    "run.gradient_accumulation_steps": ({}, 2, weights),
    "run.mixed_precision": ({}, "bf16", weights),
    "run.allow_tf32": ({}, True, rounding),
    "run.checkpointing_steps": ({}, 1, files),
    "run.checkpoints_total_limit": ({"run": {"checkpointing_steps": 1}}, 1, files),
    "run.validation_prompt": ({}, ["a toy"], files),
    "run.validation_steps": ({"run": PREVIEWS}, 1, files),
    "run.num_validation_images": ({"run": PREVIEWS}, 2, files),
    "run.report_to": ({}, "tensorboard", files),
    "run.logging_dir": ({"run": {"report_to": "tensorboard"}}, "records", files),
    "run.plan_only": ({}, True, plans),
}
# What another test proves by means of its own: its file and its name.
ELSEWHERE: dict[str, str] = {
    "preset": "config/test_presets.py::test_preset_under_yaml_under_flags",
    "model.revision": "models/test_hub.py::test_revision_and_variant",
    "model.allow_pickle": "models/test_load.py::test_pickles_are_refused_unless_allowed",
    "data.cache_latents": "data/test_latents.py::test_nothing_is_kept_without_a_cache",
    "run.output_dir": "training/test_run_folder.py::test_the_written_settings_hold_every_setting",
    "run.gradient_checkpointing": "training/test_memory.py::test_trained_text_encoders_recompute_too",
    "run.auto_memory": "training/test_recovery.py::test_a_batch_is_split_into_the_same_samples",
    "run.cpu": "gpu/test_cuda.py::test_training_runs_in_every_precision",
    "run.resume_from_checkpoint": "training/test_run_folder.py::test_a_checkpoint_is_found_by_name_and_by_path",
    "run.push_to_hub": "training/test_upload.py::test_the_public_files_of_a_finished_run_are_uploaded",
    "run.hub_model_id": "training/test_upload.py::test_a_repository_that_cannot_be",
    "run.overwrite": "training/test_run_folder.py::test_overwrite_starts_again",
    "run.sentinels": "training/test_sentinels.py::test_without_sentinels_a_run_of_bad_steps_is_not_stopped",
    **{
        f"loss.{name}": "training/test_loss_options.py::test_a_field_of_the_loss_reaches_the_run"
        for name in OF_THE_LOSS
    },
    **{
        f"optim.{name}": "training/test_optim_settings.py::test_another_value_is_another_run"
        for name in OF_THE_OPTIMIZER
    },
}


def test_every_setting_is_listed_once() -> None:
    assert sorted([*SEEN, *ELSEWHERE]) == sorted(name for name, _ in walk(TrainConfig))


@pytest.mark.parametrize("where", sorted(set(ELSEWHERE.values())))
def test_what_is_proved_elsewhere_is_there(where: str) -> None:
    file, _, name = where.partition("::")
    assert f"def {name}(" in (TESTS / file).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small bases, and photos with captions, masks and transparency."""
    root = tmp_path_factory.mktemp("place")
    small_pipeline("sd1").save_pretrained(root / "base")
    small_pipeline("sd1", seed=1).save_pretrained(root / "other")
    small_pipeline("sd1").save_pretrained(root / "variants")
    small_pipeline("sd1", seed=2).save_pretrained(root / "variants", variant="fp16")
    for name in ("photos", "tagged", "masks", "cut out"):
        (root / name).mkdir()
    rows = []
    for number, path in enumerate(sorted(PHOTOS.glob("*.jpg"))[:3]):
        photo = Image.open(path).convert("RGB").resize((96, 96))
        photo.save(root / "photos" / path.name)
        photo.resize((96, 64 + 16 * number)).save(root / "tagged" / path.name)
        (root / "tagged" / f"{path.stem}.txt").write_text("sks teapot, red, blue, green, yellow", encoding="utf-8")
        rows.append(json.dumps({"file_name": path.name, "text": "sks teapot", "words": "a white sks teapot"}))
        left = Image.new("L", photo.size)
        left.paste(255, (0, 0, 48, 96))
        left.save(root / "masks" / f"{path.stem}.png")
        photo.putalpha(left)
        photo.save(root / "cut out" / f"{path.stem}.png")
    (root / "tagged" / "metadata.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return root


def filled(value: Any, place: Path) -> Any:
    """``value`` with ``<name>`` written out."""
    if isinstance(value, dict):
        return {key: filled(inner, place) for key, inner in value.items()}
    return value.replace("<", f"{place}/").replace(">", "") if isinstance(value, str) else value


def run_of(groups: Groups, folder: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> Ran:
    """A run of two steps with ``groups`` of settings, in a home of its own."""
    monkeypatch.setenv("DORA_HOME", str(folder / "home"))
    own: Groups = {"model": {"pretrained_model_name_or_path": "<base>"}, "data": {"instance_data_dir": "<photos>"}}
    names = {*own, *groups}
    merged = {name: filled({**own.get(name, {}), **groups.get(name, {})}, place) for name in names}
    ran = Ran(folder / "run", Heard())
    try:
        run_it(small_config(ran.folder, **merged), ran.heard)
    except DoraError as error:
        ran.refused = str(error)
    return ran


@pytest.mark.parametrize("name", SEEN)
def test_another_value_is_seen(name: str, tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    besides, value, see = SEEN[name]
    group, _, leaf = name.partition(".")
    changed = {**besides, group: {**besides.get(group, {}), leaf: value}}
    before, after = (
        see(run_of(groups, tmp_path / str(k), place, monkeypatch)) for k, groups in enumerate((besides, changed))
    )
    assert before != after
