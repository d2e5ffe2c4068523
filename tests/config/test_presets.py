"""Presets lie over the defaults and under everything that is given."""

from pathlib import Path

import pytest

from dora_diffusion.cli.parse import parse
from dora_diffusion.config import AdapterConfig, TrainConfig
from dora_diffusion.config.files import build, dump_yaml, load_yaml
from dora_diffusion.config.presets import FOLDER, LAYERS, family_of, known_presets, layer_names, preset, preset_names
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


# ------------------------------------------------------------------------------------------------ layered presets
def test_there_is_one_for_every_base_subject_and_memory():
    assert [layer_names(layer) for layer in LAYERS] == [
        ("sd15", "sd21", "sdxl"),
        ("pet", "style", "object", "person"),
        ("8gb", "12gb", "16gb", "24gb"),
    ]
    layered = [name for name in preset_names() if family_of(name)]
    assert len(layered) == len(set(layered)) == 48 and "sdxl-person-12gb" in layered
    assert {family_of(name) for name in preset_names()} == {"sd1", "sd2", "sdxl", None}


def test_the_layers_lie_over_one_another():
    """Values by hand: from base/sdxl, subject/person, memory/8gb, and what the last says for SDXL alone."""
    settings = TrainConfig(preset="sdxl-person-8gb")
    assert (settings.adapter.rank, settings.adapter.train_text_encoder) == (16, False)
    assert (settings.optim.learning_rate, settings.run.mixed_precision) == (1e-4, "bf16")
    assert (settings.run.max_train_steps, settings.prior.num_class_images) == (800, 200)
    assert (settings.run.train_batch_size, settings.run.gradient_accumulation_steps) == (1, 4)
    assert settings.prior.sample_batch_size == 1 and settings.data.resolution == 768
    assert TrainConfig(preset="sd15-person-8gb").data.resolution is None
    assert TrainConfig(preset="sdxl-person-12gb").data.resolution is None
    assert TrainConfig(preset="sd15-style-8gb").adapter.targets == "attn-mlp"  # the subject's, over the base's


@pytest.mark.parametrize("name", [name for name in preset_names() if family_of(name)])
def test_memory_changes_how_a_step_is_made_and_not_how_many_photos_it_sees(name: str):
    settings = TrainConfig(preset=name)
    assert settings.run.train_batch_size * settings.run.gradient_accumulation_steps == 4
    assert settings.optim.lr_warmup_steps < settings.run.max_train_steps
    smaller = TrainConfig(preset=name.rpartition("-")[0] + "-8gb")
    assert (settings.adapter, settings.optim) == (smaller.adapter, smaller.optim)
    assert settings.run.max_train_steps == smaller.run.max_train_steps


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*/*.yaml")), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_layer_says_what_it_is_for_and_where_its_values_come_from(path: Path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# ")
    values = [line for line in lines[1:] if not line.endswith(":")]
    assert values and all(len(line.partition("# ")[2]) > 10 for line in values)


def test_help_and_errors_list_the_parts(capsys: pytest.CaptureFixture[str]):
    assert known_presets() == (
        "toybox-balanced, toybox-best, toybox-quick, or base-subject-memory with base sd15, sd21, sdxl; "
        "subject pet, style, object, person; memory 8gb, 12gb, 16gb, 24gb"
    )
    assert TrainConfig.model_fields["preset"].description.endswith(known_presets())
    with pytest.raises(ConfigError) as caught:
        TrainConfig(preset="sdxl-persn-12gb")
    assert f"known: {known_presets()}. Did you mean 'sdxl-person-12gb'?" in str(caught.value)


def test_flags_and_files_lie_over_a_layered_preset(tmp_path: Path):
    path = tmp_path / "own.yaml"
    path.write_text("preset: sd15-pet-24gb\nrun:\n  max_train_steps: 9\n", encoding="utf-8")
    settings = parse(TrainConfig, [str(path), "--rank", "7"], "train")
    assert (settings.run.max_train_steps, settings.adapter.rank, settings.run.train_batch_size) == (9, 7, 4)
    path.write_text(dump_yaml(settings), encoding="utf-8")
    assert load_yaml(TrainConfig, path) == settings
