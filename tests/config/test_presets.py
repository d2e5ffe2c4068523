"""Presets lie over the defaults and under everything that is given."""

from pathlib import Path

import pytest

from dora_diffusion.cli.parse import parse
from dora_diffusion.config import AdapterConfig, TrainConfig
from dora_diffusion.config.files import build, dump_yaml, load_yaml
from dora_diffusion.config.presets import preset, preset_names
from dora_diffusion.errors import ConfigError


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_settings(name: str):
    settings = TrainConfig(preset=name)
    for section, values in preset(name).items():
        for field, value in values.items():
            assert getattr(getattr(settings, section), field) == value, f"{section}.{field}"


def test_own_values_lie_over_the_preset():
    settings = TrainConfig(preset="toybox-balanced", adapter=AdapterConfig(rank=3))
    assert settings.adapter.rank == 3
    assert settings.adapter.targets == preset("toybox-balanced")["adapter"]["targets"]


def test_preset_under_yaml_under_flags(tmp_path: Path):
    path = tmp_path / "own.yaml"
    path.write_text("adapter:\n  rank: 5\noptim:\n  learning_rate: 0.25\n", encoding="utf-8")
    settings = parse(TrainConfig, [str(path), "--preset", "toybox-balanced", "--rank", "7"], "train")
    assert settings.adapter.rank == 7
    assert settings.optim.learning_rate == 0.25
    assert settings.run.max_train_steps == preset("toybox-balanced")["run"]["max_train_steps"]
    path.write_text("preset: toybox-balanced\nrun:\n  max_train_steps: 9\n", encoding="utf-8")
    settings = parse(TrainConfig, [str(path)], "train")
    assert settings.run.max_train_steps == 9
    assert settings.adapter.targets == preset("toybox-balanced")["adapter"]["targets"]
    assert parse(TrainConfig, ["--preset=toybox-balanced"], "train") == TrainConfig(preset="toybox-balanced")


def test_a_written_configuration_comes_back(tmp_path: Path):
    settings = TrainConfig(preset="toybox-balanced", adapter=AdapterConfig(rank=3))
    path = tmp_path / "config.yaml"
    path.write_text(dump_yaml(settings), encoding="utf-8")
    assert load_yaml(TrainConfig, path) == settings


@pytest.mark.parametrize("given", [["--preset", "toybox-balance"], ["--preset=toybox-balance"]])
def test_unknown_preset(given: list[str]):
    with pytest.raises(ConfigError, match="Unknown preset 'toybox-balance'.*Did you mean 'toybox-balanced'"):
        parse(TrainConfig, given, "train")
    with pytest.raises(ConfigError, match=r"own\.yaml: Unknown preset"):
        build(TrainConfig, {"preset": "toybox-balance"}, "own.yaml")
