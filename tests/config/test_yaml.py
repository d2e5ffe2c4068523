"""Settings in files: read strictly, and written so that the same run comes back."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from dora_diffusion.cli.parse import parse
from dora_diffusion.config import GenerateConfig, TrainConfig
from dora_diffusion.config.fields import value_at, walk
from dora_diffusion.config.files import build, dump_yaml, load_yaml
from dora_diffusion.errors import ConfigError

OTHER: dict[str, Any] = {
    "model": {"pretrained_model_name_or_path": "owner/model", "variant": "fp16", "prediction_type": "epsilon"},
    "data": {"instance_data_dir": "fotos/Mäuse, müde", "class_noun": "no", "resolution": 64, "random_flip": True},
    "adapter": {"kind": "lora", "rank": 3, "alpha": 1.5, "rank_pattern": ["attn2=32", r"\.to_q$=4"], "targets": "a: b"},
    "prior": {"with_prior_preservation": True, "class_prompt": "a 'quoted' \"prompt\": # no comment"},
    "optim": {"learning_rate": 1e-05, "adam_epsilon": 1e-08, "text_encoder_lr": 0.1 + 0.2},
    "run": {"output_dir": "null", "mixed_precision": "no", "validation_prompt": ["yes", "- 1", "multi\nline", "1e3"]},
}


def write(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(folder: Path, text: str) -> str:
    """What is said about a file that holds ``text``."""
    path = write(folder, text)
    with pytest.raises(ConfigError) as caught:
        load_yaml(TrainConfig, path)
    said = str(caught.value)
    assert said.startswith(str(path)) and "\n" not in said
    return said.removeprefix(str(path)).lstrip(": ")


@pytest.mark.parametrize("content", [{}, OTHER], ids=["defaults", "others"])
def test_settings_come_back_from_their_yaml(tmp_path: Path, content: dict[str, Any]) -> None:
    settings = TrainConfig(**content)
    text = dump_yaml(settings)
    again = load_yaml(TrainConfig, write(tmp_path, text))
    assert again == settings and dump_yaml(again) == text
    assert {name: type(value_at(again, name)) for name, _ in walk(TrainConfig)} == {
        name: type(value_at(settings, name)) for name, _ in walk(TrainConfig)
    }


def test_every_setting_is_written_out() -> None:
    written = yaml.safe_load(dump_yaml(TrainConfig()))
    sections = {name: values for name, values in written.items() if isinstance(values, dict)}
    names = {f"{section}.{name}" for section, values in sections.items() for name in values}
    assert names | (written.keys() - sections.keys()) == dict(walk(TrainConfig)).keys()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("adapter:\n  rnak: 3", "Unknown setting 'adapter.rnak'. Did you mean 'rank'?"),
        ("adapter:\n  learning_rate: 3", "Unknown setting 'adapter.learning_rate'. It belongs under 'optim'."),
        ("rank: 3", "Unknown setting 'rank'. It belongs under 'adapter'."),
        ("adapters:\n  rank: 3", "Unknown setting 'adapters'. Did you mean 'adapter'?"),
        ("adapter:\n  zzzz: 3", "Unknown setting 'adapter.zzzz'."),
        ("1: 3", "Unknown setting '1'."),
        ("adapter:\n  1: 3", "Unknown setting 'adapter.1'."),
        ("adapter: 3", "adapter must hold settings by name, got 3."),
        ("adapter:\n  rank: 0", "rank must be greater than or equal to 1, got 0."),
        ("adapter:\n  rank: many", "got 'many'."),
        ("adapter:\n  kind: dorra", "Unknown adapter kind 'dorra'; known: dora, lora. Did you mean 'dora'?"),
        ("data:\n  resolution: 100", "resolution must be a multiple of 8, got 100."),
        ("- rank", "must hold settings by name, got list."),
        ("just words", "must hold settings by name, got str."),
        ("adapter: [", "is not valid YAML: "),
        ("adapter:\n\trank: 3", "is not valid YAML: "),
        ("!!python/object/apply:os.system ['true']", "is not valid YAML: "),
    ],
)
def test_a_wrong_file_is_told_in_one_line_with_its_name(tmp_path: Path, text: str, told: str) -> None:
    assert told in refusal(tmp_path, text)


def test_a_missing_or_binary_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing.yaml cannot be read: No such file or directory\."):
        load_yaml(TrainConfig, tmp_path / "nothing.yaml")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"b\.yaml is not valid YAML"):
        load_yaml(TrainConfig, tmp_path / "b.yaml")


@pytest.mark.parametrize("text", ["", "# nothing\n", "adapter:\n", "adapter: {}\nrun:\n"])
def test_an_empty_file_or_section_keeps_the_defaults(tmp_path: Path, text: str) -> None:
    assert load_yaml(TrainConfig, write(tmp_path, text)) == TrainConfig()


def test_a_bare_no_is_a_precision_and_a_switch(tmp_path: Path) -> None:
    settings = load_yaml(TrainConfig, write(tmp_path, "run:\n  mixed_precision: no\ndata:\n  cache_latents: no\n"))
    assert settings.run.mixed_precision == "no" and settings.data.cache_latents is False
    settings = load_yaml(TrainConfig, write(tmp_path, "data: {random_flip: True, cache_latents: false}"))
    assert settings.data.random_flip is True and settings.data.cache_latents is False


def test_a_rate_without_a_dot_is_a_number(tmp_path: Path) -> None:
    assert load_yaml(TrainConfig, write(tmp_path, "optim:\n  learning_rate: 1e-3")).optim.learning_rate == 1e-3


def test_flat_settings_are_read_too(tmp_path: Path) -> None:
    assert load_yaml(GenerateConfig, write(tmp_path, "seed: 4")).seed == 4
    with pytest.raises(ConfigError, match=r"here: Unknown setting 'sed'. Did you mean 'seed'\?"):
        build(GenerateConfig, {"sed": 4}, "here")


def test_flags_win_over_yaml_and_yaml_over_defaults(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "adapter: {rank: 5, train_text_encoder: true, rank_pattern: [attn1=2]}\nrun: {seed: 9, cpu: true}\n",
    )
    flags = ["--rank", "6", "--no_train_text_encoder", "--rank_pattern", "attn2=3", "--max_train_steps", "7"]
    settings = parse(TrainConfig, [str(path), *flags], "train")
    assert (settings.adapter.rank, settings.adapter.train_text_encoder) == (6, False)
    assert settings.adapter.rank_pattern == ["attn2=3"]
    assert (settings.run.max_train_steps, settings.run.seed, settings.run.cpu) == (7, 9, True)
    assert settings.adapter.kind == "dora" and settings.optim == TrainConfig().optim
