"""Flags of diffusers' scripts: each means here what it means there, or is refused by name."""

import os
from pathlib import Path
from typing import Any

import pytest
from diffusers_flags import ALL

from dora_diffusion.cli.aliases import REFUSED, REPLACED
from dora_diffusion.cli.diffusers_command import DEFAULTS, FLAGS, SWITCHES, read_command
from dora_diffusion.cli.train import parse_command
from dora_diffusion.config import TrainConfig
from dora_diffusion.config.fields import value_at, walk
from dora_diffusion.errors import ConfigError
from dora_diffusion.registry import OPTIMIZERS

LEAVES = {name.rpartition(".")[2]: name for name, _ in walk(TrainConfig)}
PHOTOS = Path(__file__).parents[2] / "samples" / "subjects" / "teapot"  # five of them


def settings(*arguments: object) -> TrainConfig:
    return parse_command([str(argument) for argument in arguments])[0]


def notes(*arguments: object) -> str:
    return " ".join(parse_command([str(argument) for argument in arguments])[1])


def refusal(*arguments: object) -> str:
    with pytest.raises(ConfigError) as caught:
        settings(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_flag_is_a_setting_or_replaced_or_settled_or_refused() -> None:
    ours = {f"--{leaf}" for leaf in LEAVES}
    assert [flag for flag in ALL if flag not in ours | REPLACED.keys() | FLAGS.keys() | REFUSED.keys()] == []


def test_the_tables_do_not_overlap_and_hold_flags_of_the_scripts() -> None:
    assert not REPLACED.keys() & FLAGS.keys() and not REPLACED.keys() & REFUSED.keys()
    assert not FLAGS.keys() & REFUSED.keys()
    assert FLAGS.keys() | REFUSED.keys() <= set(ALL) and FLAGS.keys() >= SWITCHES
    assert DEFAULTS.keys() <= LEAVES.keys()


# ------------------------------------------------------------------------------------------------------ epochs
@pytest.mark.parametrize(
    ("more", "steps"),
    [
        ([], 3 * 5),
        (["--train_batch_size", 2], 3 * 3),
        (["--train_batch_size=2", "--gradient_accumulation_steps=2"], 3 * 2),
        (["--gradient_accumulation_steps", 10], 3 * 1),
        (["--with_prior_preservation", "--num_class_images", 12], 3 * 12),
        (["--with_prior_preservation", "--num_class_images", 2], 3 * 5),
    ],
)
def test_epochs_are_counted_in_the_photos(more: list[object], steps: int) -> None:
    """Five photos; the figures are ``len(DataLoader)`` of the scripts, divided by the accumulation, rounded up."""
    config = settings("--instance_data_dir", PHOTOS, "--num_train_epochs", 3, *more)
    assert config.run.max_train_steps == steps
    config = settings("--instance_data_dir", PHOTOS, "--validation-epochs=3", *more)
    assert (config.run.validation_steps, config.run.max_train_steps) == (steps, TrainConfig().run.max_train_steps)


def test_epochs_of_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert settings("--instance_data_dir", PHOTOS, "--num_train_epochs", 4).run.max_train_steps == 4 * 3


def test_steps_win_over_epochs() -> None:
    given = ("--instance_data_dir", PHOTOS, "--num_train_epochs", 3, "--max_train_steps", 7)
    assert settings(*given).run.max_train_steps == 7 and "without effect beside --max_train_steps" in notes(*given)
    given = ("--instance_data_dir", PHOTOS, "--validation_epochs", 3, "--validation_steps", 7)
    assert settings(*given).run.validation_steps == 7 and "without effect beside --validation_steps" in notes(*given)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (
            ("--validation_prompt", "sks dog"),
            "3 epochs of 5 steps are 15 steps; previews are drawn every 15 steps and at ",
        ),
        (
            ("--validation_prompt", "sks dog", "--max_train_steps", 15),
            "3 epochs of 5 steps are 15 steps; previews are drawn at the end only, after 15 steps.",
        ),
        (
            ("--validation_prompt", "sks dog", "--num_train_epochs", 2),
            "3 epochs of 5 steps are 15 steps; previews are drawn at the end only, after 10 steps.",
        ),
        ((), "without effect, as no --validation_prompt says what to draw."),
    ],
)
def test_what_becomes_of_validation_epochs_is_told(more: tuple[object, ...], told: str) -> None:
    assert f"--validation_epochs: {told}" in notes("--instance_data_dir", PHOTOS, "--validation_epochs", 3, *more)


def test_epochs_win_over_a_preset() -> None:
    given = ("--preset", "toybox-quick", "--instance_data_dir", PHOTOS, "--num_train_epochs", 4)
    config = settings(*given)
    assert config.run.train_batch_size == 2 and config.prior.num_class_images == 12
    assert config.run.max_train_steps == 4 * 6
    assert "4 epochs of 6 steps are 24 steps" in notes(*given)


@pytest.mark.parametrize("value", ["0", "x", "1.5"])
def test_epochs_are_whole(value: str) -> None:
    told = refusal("--instance_data_dir", PHOTOS, "--num_train_epochs", value)
    assert told == f"--num_train_epochs must be a whole number of at least 1, got {value!r}."


# ------------------------------------------------------------------------------------------ rates and optimizers
def test_the_rate_is_scaled_as_in_the_scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    given = ("--learning_rate", 1e-4, "--scale_lr", "--train_batch_size", 2, "--gradient_accumulation_steps", 3)
    assert settings(*given).optim.learning_rate == pytest.approx(6e-4)
    assert "the learning rate is 0.0006 (3 accumulated x 2 photos x 1 processes)" in notes(*given)
    assert settings("--learning_rate", 1e-4, "--scale_lr").optim.learning_rate == 1e-4
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert settings(*given).optim.learning_rate == pytest.approx(24e-4)


def test_8bit_adam_is_an_optimizer_where_there_is_one() -> None:
    if "adamw8bit" in OPTIMIZERS:
        assert settings("--use_8bit_adam").optim.optimizer == "adamw8bit"
    else:
        assert refusal("--use_8bit_adam").startswith("Unknown optimizer 'adamw8bit'; known: adamw.")


# ------------------------------------------------------------------------------------------------------- photos
def test_a_data_set_in_a_folder_is_the_photo_folder() -> None:
    given = ("--dataset_name", PHOTOS, "--num_train_epochs", 2)
    assert settings(*given).data.instance_data_dir == PHOTOS and settings(*given).run.max_train_steps == 10
    assert f"the photos are those in {PHOTOS}" in notes(*given)


def test_a_data_set_of_the_hub_is_refused_with_the_way_to_get_it() -> None:
    told = refusal("--dataset_name", "diffusers/dog-example")
    assert "hf download --repo-type dataset diffusers/dog-example --local-dir photos" in told
    both = refusal("--dataset_name", PHOTOS, "--instance_data_dir", PHOTOS)
    assert both == "Photos come from --instance_data_dir or --dataset_name; give one of them."


# ---------------------------------------------------------------------------------- flags with one value, or none
@pytest.mark.parametrize(
    ("accepted", "refused"),
    [
        (["--lora_dropout", "0.0"], ["--lora_dropout", "0.1"]),
        (["--image_interpolation_mode=lanczos"], ["--image_interpolation_mode", "bilinear"]),
        (["--image_column", "image"], ["--image_column", "picture"]),
        (["--prior_generation_precision", "fp32"], ["--prior_generation_precision", "fp16"]),
        (
            ["--mixed_precision", "bf16", "--prior_generation_precision", "bf16"],
            ["--mixed_precision", "bf16", "--prior_generation_precision", "fp32"],
        ),
    ],
)
def test_a_value_that_changes_nothing_is_accepted_and_others_are_refused(
    accepted: list[str], refused: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    assert settings(*accepted).adapter == TrainConfig().adapter and notes(*accepted) == ""
    told = refusal(*refused)
    assert told.startswith(f"{refused[-2]} {refused[-1]}: ") and told.endswith("Leave the flag out.")


@pytest.mark.parametrize(
    "given", [["--dataloader_num_workers", "4"], ["--local_rank", "-1"], ["--pre_compute_text_embeddings"]]
)
def test_a_flag_without_effect_is_noted(given: list[str]) -> None:
    assert settings(*given) == TrainConfig()
    assert notes(*given).startswith(f"{given[0]}: ")


def test_computed_embeddings_exclude_a_trained_text_encoder() -> None:
    told = refusal("--pre_compute_text_embeddings", "--train_text_encoder")
    assert told == "--pre_compute_text_embeddings cannot be used with --train_text_encoder; leave one out."


@pytest.mark.parametrize("flag", [flag for flag in FLAGS if flag not in SWITCHES])
def test_a_flag_that_lacks_its_value(flag: str) -> None:
    assert refusal(flag) == refusal(flag, "--seed", 1) == f"{flag} needs a value."


def test_a_value_is_never_taken_for_a_flag() -> None:
    command = read_command(["--instance_prompt", "scale_lr", "--scale-lr", "--local-rank=-1", "--seed=3"])
    assert command.arguments == ["--instance_prompt", "scale_lr", "--seed=3"]
    assert command.asked == {"--scale_lr": "", "--local_rank": "-1"}
    assert command.given == {"--instance_prompt", "--scale_lr", "--local_rank", "--seed"}


# ------------------------------------------------------------------------------------------------------- the hub
def test_the_token_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "before")
    config, told = parse_command(["--push_to_hub", "--hub_model_id", "me/dog", "--hub_token", "hf_secret"])
    assert (config.run.push_to_hub, config.run.hub_model_id) == (True, "me/dog")
    assert os.environ["HF_TOKEN"] == "hf_secret" and "hf_secret" not in config.model_dump_json() + "".join(told)


@pytest.mark.parametrize("trackers", ["wandb", "tensorboard,wandb", "trackio", "all"])
def test_a_token_beside_a_tracker_that_stores_the_command_is_refused(
    trackers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    told = refusal("--hub_token", "hf_secret", "--report_to", trackers)
    assert "the token with it" in told and "hf_secret" not in told and "HF_TOKEN" not in os.environ


# --------------------------------------------------------------------------------------------------- differences
THEIRS = ("--pretrained_model_name_or_path", "owner/model", "--instance_prompt", "a photo of sks dog")


def test_a_command_of_the_scripts_is_told_what_differs() -> None:
    told = notes(*THEIRS)
    for part in (
        "kind dora (there lora)",
        "rank 16 (there 4)",
        "learning_rate 0.0001 (there 0.0005, SDXL 0.0001)",
        "train_batch_size 1 (there 4)",
        "max_train_steps 500 (there one epoch)",
        "resolution unset (there 512, SDXL 1024)",
        "adam_weight_decay 0.01 (there, for SDXL, 0.0001)",
    ):
        assert part in told
    assert "text_encoder_lr" not in told and "validation_steps" not in told
    assert "text_encoder_lr unset (there learning_rate, SDXL 5e-06)" in notes(*THEIRS, "--train_text_encoder")
    assert "validation_steps 0 (there 50 epochs)" in notes(*THEIRS, "--validation_prompt", "sks dog")


@pytest.mark.parametrize(
    ("given", "gone"),
    [
        (["--use_lora"], "kind"),
        (["--use_dora"], "kind"),
        (["--kind", "lora"], "kind"),
        (["--rank=8"], "rank"),
        (["--resolution", 768], "resolution"),
        (["--num_train_epochs", 2, "--instance_data_dir", PHOTOS], "max_train_steps"),
    ],
)
def test_what_is_given_is_not_listed(given: list[Any], gone: str) -> None:
    assert f" {gone} " in notes(*THEIRS) and f" {gone} " not in notes(*THEIRS, *given)


def test_a_command_of_ours_is_told_nothing() -> None:
    assert notes("--instance_data_dir", PHOTOS, "--class_noun", "teapot", "--rank", 4) == ""


@pytest.mark.parametrize("leaf", DEFAULTS)
def test_a_default_that_is_listed_is_not_always_ours(leaf: str) -> None:
    ours = value_at(TrainConfig(), LEAVES[leaf])
    assert {ours} != set(DEFAULTS[leaf])
