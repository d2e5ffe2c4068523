"""How settings are declared: every field once, described, ranged, and nothing that a flag cannot be made from."""

from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel, ValidationError

from dora_diffusion import config
from dora_diffusion.config import AdapterConfig, DataConfig, GenerateConfig, ModelConfig, PriorConfig, TrainConfig
from dora_diffusion.config.fields import Settings, free, is_identity, value_at, walk
from dora_diffusion.errors import ConfigError

CONFIGS = [getattr(config, name) for name in config.__all__]
FIELDS = [(kind, name) for kind in CONFIGS for name, _ in walk(kind)]


def build_settings(kind: type[Settings], **values: Any) -> Settings:
    """Settings from whatever somebody may pass; type checkers do not look."""
    return kind(**values)


def annotations(kind: Any) -> list[Any]:
    """An annotation and everything inside it."""
    return [kind, get_origin(kind), *(inner for argument in get_args(kind) for inner in annotations(argument))]


@pytest.mark.parametrize("kind", CONFIGS, ids=lambda kind: kind.__name__)
def test_leaf_names_are_unique(kind: type[BaseModel]) -> None:
    leaves = [name.rpartition(".")[2] for name, _ in walk(kind)]
    assert leaves and len(set(leaves)) == len(leaves)


@pytest.mark.parametrize(("kind", "name"), FIELDS, ids=[f"{kind.__name__}.{name}" for kind, name in FIELDS])
def test_a_field_is_described_and_says_whether_it_is_identity(kind: type[BaseModel], name: str) -> None:
    field = dict(walk(kind))[name]
    assert field.description and len(field.description) > 5 and not field.description.endswith(".")
    assert not field.is_required()
    assert isinstance(field.json_schema_extra, dict) and isinstance(field.json_schema_extra["identity"], bool)
    assert not {dict, Any} & set(annotations(field.annotation))


def test_the_check_for_dictionaries_finds_them() -> None:
    assert dict in annotations(list[dict[str, int]] | None) and dict not in annotations(list[str] | None)


def test_identity_is_what_the_design_says() -> None:
    identity = {name for name, field in walk(TrainConfig) if is_identity(field)}
    named = {
        *("model.pretrained_model_name_or_path", "data.instance_data_dir", "data.instance_prompt", "data.resolution"),
        *("adapter.kind", "adapter.rank", "adapter.alpha", "adapter.targets", "prior.with_prior_preservation"),
        *("optim.optimizer", "optim.learning_rate", "run.seed", "run.train_batch_size"),
    }
    assert named <= identity
    may_change = {
        "run.max_train_steps",
        "run.checkpointing_steps",
        "run.output_dir",
        "run.report_to",
        "model.attention",
    }
    assert not may_change & identity


@pytest.mark.parametrize("kind", CONFIGS, ids=lambda kind: kind.__name__)
def test_settings_are_frozen(kind: type[BaseModel]) -> None:
    settings = kind()
    for name in kind.model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(settings, name, getattr(settings, name))


@pytest.mark.parametrize("kind", CONFIGS, ids=lambda kind: kind.__name__)
def test_a_group_refuses_names_it_does_not_know(kind: type[BaseModel]) -> None:
    with pytest.raises(ConfigError, match="Unknown setting 'no_such_name'"):
        kind(no_such_name=1)


def test_an_unknown_name_gets_a_hint() -> None:
    with pytest.raises(ConfigError, match=r"Unknown setting 'rnak'. Did you mean 'rank'\?"):
        build_settings(AdapterConfig, rnak=3)
    with pytest.raises(ConfigError, match=r"Unknown setting 'rank'. It belongs under 'adapter'\."):
        build_settings(TrainConfig, rank=3)


@pytest.mark.parametrize(
    ("kind", "values", "told"),
    [
        (AdapterConfig, {"rank": 0}, "rank must be greater than or equal to 1, got 0"),
        (AdapterConfig, {"rank": 4000}, "rank must be less than or equal to 1024, got 4000"),
        (AdapterConfig, {"alpha": 0}, "alpha must be greater than 0, got 0"),
        (AdapterConfig, {"kind": "dorra"}, "Unknown adapter kind 'dorra'; known: dora, lora. Did you mean 'dora'?"),
        (AdapterConfig, {"rank_pattern": ["attn2"]}, "A pattern is written 'regex=number'"),
        (AdapterConfig, {"rank_pattern": ["=4"]}, "got '=4'"),
        (AdapterConfig, {"rank_pattern": ["a=4."]}, "got 'a=4.'"),
        (AdapterConfig, {"alpha_pattern": ["attn2=0"]}, "the number above 0, got 'attn2=0'"),
        (AdapterConfig, {"alpha_pattern": ["attn2=-1"]}, "got 'attn2=-1'"),
        (AdapterConfig, {"alpha_pattern": ["attn2=nan"]}, "got 'attn2=nan'"),
        (DataConfig, {"resolution": 100}, "resolution must be a multiple of 8, got 100"),
        (DataConfig, {"trigger": ""}, "trigger must have at least 1 character"),
        (ModelConfig, {"pretrained_model_name_or_path": ""}, "must have at least 1 character, got ''"),
        (ModelConfig, {"attention": "flush"}, "Unknown attention backend 'flush'; known: sdpa, flash, xformers."),
        (PriorConfig, {"num_class_images": 0}, "num_class_images must be greater than or equal to 1, got 0"),
        (GenerateConfig, {"height": 100}, "height must be a multiple of 8, got 100"),
        (GenerateConfig, {"strength": float("nan")}, "strength must be"),
        (GenerateConfig, {"sampler": "eulr"}, "Did you mean 'euler'?"),
    ],
)
def test_a_value_out_of_range_is_told_in_one_line(kind: type[Settings], values: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        kind(**values)
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_two_faults_are_both_told() -> None:
    with pytest.raises(ConfigError) as caught:
        build_settings(AdapterConfig, rank=0, norm_grad="half")
    assert "rank must be" in str(caught.value) and "norm_grad must be" in str(caught.value)


def test_defaults_are_checked_too() -> None:
    class Wrong(Settings):
        size: int = free(0, "a size", ge=1)

    with pytest.raises(ConfigError, match="size must be greater"):
        Wrong()


def test_patterns_take_whole_and_broken_numbers() -> None:
    patterns = AdapterConfig(rank_pattern=["attn2=32", "a=b=4"], alpha_pattern=["to_q=0.5"])
    assert patterns.rank_pattern == ["attn2=32", "a=b=4"] and patterns.alpha_pattern == ["to_q=0.5"]


def test_the_optimizer_of_diffusers_scripts_is_known() -> None:
    assert config.OptimConfig(optimizer="AdamW").optimizer == "adamw"


def test_walk_and_value_at_agree() -> None:
    settings = TrainConfig(adapter=AdapterConfig(rank=7))
    assert value_at(settings, "adapter.rank") == 7
    assert {name: value_at(settings, name) for name, _ in walk(TrainConfig)}["run.seed"] == 0


def test_prompts_are_made_from_the_class_noun() -> None:
    data = DataConfig(class_noun="dog")
    assert data.prompt() == "a photo of sks dog"
    assert DataConfig(class_noun="dog", instance_prompt="zwx").prompt() == "zwx"
    assert TrainConfig(data=data).class_prompt() == "a photo of a dog"
    assert TrainConfig(data=data, prior=PriorConfig(class_prompt="dogs")).class_prompt() == "dogs"
    for empty in (DataConfig(), DataConfig(class_noun="", instance_prompt="")):
        with pytest.raises(ConfigError, match="What is the subject"):
            empty.prompt()
    with pytest.raises(ConfigError, match="Prior preservation needs"):
        TrainConfig().class_prompt()


def test_no_setting_holds_a_path_of_this_machine() -> None:
    paths = [value for kind in CONFIGS for name, _ in walk(kind) if isinstance(value := value_at(kind(), name), Path)]
    assert paths and not any(path.is_absolute() for path in paths)
