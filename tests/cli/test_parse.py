"""Flags: those of diffusers' scripts, other spellings of them, and what is said about the rest."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from dora_diffusion.cli.aliases import REFUSED, REPLACED, apply_aliases
from dora_diffusion.cli.parse import parse, take_file
from dora_diffusion.config import (
    AppConfig,
    CombineConfig,
    ConvertConfig,
    DemoConfig,
    EvaluateConfig,
    ExportConfig,
    GenerateConfig,
    InspectConfig,
    MergeConfig,
    TrainConfig,
    VerifyConfig,
)
from dora_diffusion.config.fields import value_at, walk
from dora_diffusion.errors import ConfigError

LEAVES = {name.rpartition(".")[2]: name for name, _ in walk(TrainConfig)}

# The flags that design.md promises (section 4), each with a value and what it must become.
PROMISED: dict[str, tuple[list[str], Any]] = {
    "pretrained_model_name_or_path": (["owner/model"], "owner/model"),
    "instance_data_dir": (["photos"], Path("photos")),
    "instance_prompt": (["a photo of sks dog"], "a photo of sks dog"),
    "class_data_dir": (["class"], Path("class")),
    "class_prompt": (["a photo of dog"], "a photo of dog"),
    "with_prior_preservation": ([], True),
    "prior_loss_weight": (["0.5"], 0.5),
    "num_class_images": (["12"], 12),
    "train_text_encoder": ([], True),
    "rank": (["4"], 4),
    "learning_rate": (["1e-4"], 1e-4),
    "text_encoder_lr": (["5e-6"], 5e-6),
    "max_train_steps": (["7"], 7),
    "train_batch_size": (["2"], 2),
    "gradient_accumulation_steps": (["3"], 3),
    "gradient_checkpointing": ([], True),
    "resolution": (["512"], 512),
    "mixed_precision": (["fp16"], "fp16"),
    "seed": (["5"], 5),
    "output_dir": (["out"], Path("out")),
    "checkpointing_steps": (["9"], 9),
    "checkpoints_total_limit": (["2"], 2),
    "resume_from_checkpoint": (["checkpoint-4"], "checkpoint-4"),
    "validation_prompt": (["a sks dog"], ["a sks dog"]),
    "snr_gamma": (["5.0"], 5.0),
    "optimizer": (["AdamW"], "adamw"),
    "lr_scheduler": (["cosine"], "cosine"),
    "report_to": (["tensorboard"], "tensorboard"),
}
LONG = "so many words that they do not fit into one line of the box that they are first printed in, whatever its width"


def train(*arguments: str) -> TrainConfig:
    return parse(TrainConfig, list(arguments), "train")


def refusal(kind: type[BaseModel], *arguments: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(kind, list(arguments), "command")
    told = str(caught.value)
    assert "\n" not in told and "----" not in told and "│" not in told
    return told


def test_the_promised_flags_are_settings() -> None:
    assert PROMISED.keys() - LEAVES.keys() <= {"snr_gamma"}


@pytest.mark.parametrize("flag", [flag for flag in PROMISED if flag in LEAVES])
@pytest.mark.parametrize("written", ["--{flag} value", "--{flag}=value", "--dashes value"])
def test_a_promised_flag_is_accepted(flag: str, written: str) -> None:
    values, expected = PROMISED[flag]
    name = f"--{flag.replace('_', '-')}" if "dashes" in written else f"--{flag}"
    given = [f"{name}={values[0]}"] if "=" in written and values else [name, *values]
    assert value_at(train(*given), LEAVES[flag]) == expected


@pytest.mark.parametrize(
    "leaf", [leaf for leaf, name in LEAVES.items() if isinstance(value_at(TrainConfig(), name), bool)]
)
def test_a_switch_has_both_forms(leaf: str) -> None:
    assert value_at(train(f"--{leaf}"), LEAVES[leaf]) is True
    assert value_at(train(f"--no_{leaf}"), LEAVES[leaf]) is False
    assert value_at(train(f"--no-{leaf.replace('_', '-')}"), LEAVES[leaf]) is False


@pytest.mark.parametrize(
    ("arguments", "name", "expected"),
    [
        (["--use_lora"], "adapter.kind", "lora"),
        (["--kind", "lora", "--use_dora"], "adapter.kind", "dora"),
        (["--use-dora"], "adapter.kind", "dora"),
        (["--lora_alpha", "8"], "adapter.alpha", 8.0),
        (["--lora-alpha=8"], "adapter.alpha", 8.0),
        (["--enable_xformers_memory_efficient_attention"], "model.attention", "xformers"),
        (["--enable-xformers-memory-efficient-attention"], "model.attention", "xformers"),
        (["--adam_weight_decay_text_encoder", "0.1"], "optim.adam_weight_decay_text_encoder", 0.1),
        (["--optimizer", "AdamW"], "optim.optimizer", "adamw"),
        (["--optimizer", "prodigy", "--prodigy_beta3", "0.9"], "optim.prodigy_beta3", 0.9),
        (["--train_text_encoder", "True"], "adapter.train_text_encoder", True),
        (["--train-text-encoder=false"], "adapter.train_text_encoder", False),
    ],
)
def test_other_spellings(arguments: list[str], name: str, expected: object) -> None:
    assert value_at(train(*arguments), name) == expected


def test_json_is_a_spelling_where_it_means_something() -> None:
    assert parse(InspectConfig, ["--json"], "inspect").as_json is True
    told = refusal(TrainConfig, "--json")
    assert told.startswith("Unknown argument '--json'.") and "as_json" not in told
    assert refusal(GenerateConfig, "--use_dora").startswith("Unknown argument '--use_dora'.")


def test_every_spelling_leads_to_a_flag() -> None:
    known = set(LEAVES) | {"as_json"}
    assert {meaning[0].removeprefix("--") for meaning in REPLACED.values()} <= known
    assert not {flag.removeprefix("--") for flag in (*REPLACED, *REFUSED)} & known


@pytest.mark.parametrize("flag", REFUSED)
def test_a_refused_flag_names_the_reason(flag: str) -> None:
    for written in ([flag], [f"{flag}=1"], [flag.replace("_", "-"), "1"]):
        assert refusal(TrainConfig, *written) == f"{flag}: {REFUSED[flag]}."
    assert len(REFUSED[flag]) > 20


def test_only_flags_are_rewritten() -> None:
    given = ["--instance-prompt", "a lora-alpha dog", "-3", "a=b", "--prompt=x-y=z"]
    assert apply_aliases(given, set()) == ["--instance_prompt", "a lora-alpha dog", "-3", "a=b", "--prompt=x-y=z"]


def test_lists_take_several_values() -> None:
    settings = train("--validation_prompt", "a sks dog", "a dog", "--rank_pattern", "attn1=4", "attn2=8", "--seed", "3")
    assert settings.run.validation_prompt == ["a sks dog", "a dog"] and settings.run.seed == 3
    assert settings.adapter.rank_pattern == ["attn1=4", "attn2=8"]
    assert train("--rank_pattern=attn1=4").adapter.rank_pattern == ["attn1=4"]


@pytest.mark.parametrize("written", [["--strength", "-0.5"], ["--strength=-0.5"]])
def test_a_negative_number_is_a_value(written: list[str]) -> None:
    assert parse(GenerateConfig, written, "generate").strength == -0.5


def test_a_value_may_look_like_a_flag_after_an_equals_sign() -> None:
    settings = parse(GenerateConfig, ["--negative_prompt=--ugly", "--prompt=a=b", "--num-images=2"], "generate")
    assert (settings.negative_prompt, settings.prompt, settings.num_images) == ("--ugly", "a=b", 2)


@pytest.mark.parametrize(
    ("kind", "arguments", "told"),
    [
        (TrainConfig, ["--rnk", "3"], "Unknown argument '--rnk'. Did you mean '--rank'?"),
        (TrainConfig, ["--learning_rat=3"], "Did you mean '--learning_rate'?"),
        (TrainConfig, ["--use_loar"], "Did you mean '--use_lora'?"),
        (TrainConfig, ["--zzzzzzzz"], "Unknown argument '--zzzzzzzz'. See:"),
        (TrainConfig, ["--instance_prompt", "a", "photo"], "A folder or prompt with spaces needs quotes."),
        (TrainConfig, ["my photos", "--rank", "4"], "dora-diffusion command --instance_data_dir 'my photos'."),
        (TrainConfig, ["--seed", "1", "run.yaml"], "A settings file comes first, before the flags."),
        (TrainConfig, ["--rank", "x"], "--rank must be a whole number, got 'x'."),
        (TrainConfig, ["--resolution", "5.5"], "--resolution must be a whole number, got '5.5'."),
        (TrainConfig, ["--learning_rate", "slow"], "--learning_rate must be a number, got 'slow'."),
        (TrainConfig, ["--alpha", "x"], "--alpha must be a number, got 'x'."),
        (TrainConfig, ["--rank"], "--rank needs a value."),
        (TrainConfig, ["--rank", "0"], "rank must be greater than or equal to 1, got 0."),
        (
            TrainConfig,
            ["--mixed_precision", "fp8"],
            "--mixed_precision must be one of None, bf16, fp16, no, got 'fp8'.",
        ),
        (TrainConfig, ["--lr_scheduler", "cosin"], "got 'cosin'. Did you mean 'cosine'?"),
        (
            TrainConfig,
            ["--norm_grad", "detatch"],
            "--norm_grad must be one of detach, full, got 'detatch'. Did you mean",
        ),
        (TrainConfig, ["--kind", "dorra"], "Unknown adapter kind 'dorra'; known: dora, lora. Did you mean 'dora'?"),
        (TrainConfig, ["--optimizer", "adamx"], "Unknown optimizer 'adamx'"),
        (TrainConfig, ["--rank_pattern", "attn2"], "A pattern is written 'regex=number'"),
        (TrainConfig, ["--seed", LONG], f"--seed must be a whole number, got '{LONG}'."),
        (TrainConfig, ["--seed", "x" * 300], "--seed must be a whole number, got 'xx"),
        (GenerateConfig, ["--height", "100"], "height must be a multiple of 8, got 100."),
        (GenerateConfig, ["--strength", "9"], "strength must be less than or equal to 3, got 9.0."),
        (GenerateConfig, ["--rank", "4"], "Unknown argument '--rank'."),
        (ExportConfig, ["--format", "kohyaa"], "Unknown export format 'kohyaa'"),
        (DemoConfig, ["--max_train_steps", "0"], "max_train_steps must be greater than or equal to 1, got 0."),
        (AppConfig, ["--prot", "1"], "Unknown argument '--prot'. Did you mean '--port'?"),
        (AppConfig, ["--port", "99999"], "port must be less than or equal to 65535, got 99999."),
        (AppConfig, ["--port", "web"], "--port must be a whole number, got 'web'."),
    ],
)
def test_a_wrong_argument_is_told_in_one_line(kind: type[BaseModel], arguments: list[str], told: str) -> None:
    assert told in refusal(kind, *arguments)


@pytest.mark.parametrize("kind", [ExportConfig, GenerateConfig, MergeConfig, EvaluateConfig, ConvertConfig])
def test_an_adapter_without_its_flag_is_told_the_flag(
    kind: type[BaseModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = "Unknown argument 'run'. It is given with its flag: dora-diffusion command --adapter run. See:"
    output = "--output" if "output" in kind.model_fields else "--output_dir"
    assert refusal(kind, "run", output, "x").startswith(told)
    assert "needs quotes" in refusal(kind, output, "my", "run")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    assert refusal(kind, output, "x", "run").startswith(told)
    assert "needs quotes" in refusal(kind, "--adapter=my", "run"), "it is given already"


def test_several_adapters_and_a_file_are_told_too() -> None:
    assert "dora-diffusion command --adapters one." in refusal(CombineConfig, "one", "two")
    for kind, command in ((InspectConfig, "inspect"), (VerifyConfig, "verify")):
        with pytest.raises(ConfigError, match=f"The file comes first, without a flag: dora-diffusion {command} FILE"):
            parse(kind, ["--adapter", "run"], command, takes="FILE")


@pytest.mark.parametrize(
    "arguments",
    [
        ["my file", "--json", "--against", "run"],
        ["--against", "run", "my file", "--json"],
        ["--json", "--against=run", "my file"],
        ["--json", "my file", "--against", "run"],
    ],
)
def test_a_file_stands_anywhere_among_the_flags(arguments: list[str]) -> None:
    path, flags = take_file(VerifyConfig, arguments)
    config = parse(VerifyConfig, flags, "verify", takes="FILE")
    assert (path, config.against, config.as_json) == ("my file", Path("run"), True)
    assert take_file(VerifyConfig, ["--against", "run"]) == (None, ["--against", "run"])
