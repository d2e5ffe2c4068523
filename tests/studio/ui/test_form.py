"""The advanced form holds every setting once, shows it as it is, and gives back only what was changed."""

import json
import shlex
from typing import Any

import pytest
from fake_studio import FakeStudio

from dora_diffusion.cli.parse import parse
from dora_diffusion.config import TrainConfig
from dora_diffusion.config.fields import value_at, walk
from dora_diffusion.studio.job_settings import KEPT

gr = pytest.importorskip("gradio")

from dora_diffusion.studio.ui import advanced, form  # noqa: E402 - after the check for gradio

PRESET = TrainConfig(preset="toybox-balanced")
SETTINGS = form.settings()


def as_shown(config: TrainConfig) -> dict[str, Any]:
    return {setting.name: setting.shown(value_at(config, setting.name)) for setting in SETTINGS}


def test_every_setting_is_in_the_form_or_kept_by_the_studio() -> None:
    names = [name for name, _ in walk(TrainConfig)]
    assert sorted([setting.name for setting in SETTINGS] + list(KEPT)) == sorted(names)
    assert {setting.name.partition(".")[0] for setting in SETTINGS} == set(form.TITLES)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_a_control_shows_its_setting(setting: form.Setting) -> None:
    value = value_at(PRESET, setting.name)
    with gr.Blocks():
        control = setting.control(value)
    assert control.label and control.elem_id == setting.elem_id
    assert len(control.info) > 10 and control.info.endswith(".")
    assert setting.given(control.value) == value, "what is shown and given back is the same"
    if setting.choices:
        assert control.value in setting.choices


def test_ids_are_unique() -> None:
    assert len({setting.elem_id for setting in SETTINGS}) == len(SETTINGS)


@pytest.mark.parametrize(
    ("name", "range_"),
    [
        ("adapter.rank", "(at least 1, at most 1024)"),
        ("optim.learning_rate", "(above 0)"),
        ("optim.ema_decay", "(at least 0, below 1)"),
        ("adapter.rank_pattern", "(one a line)"),
    ],
)
def test_ranges_are_told(name: str, range_: str) -> None:
    assert range_ in next(setting.help for setting in SETTINGS if setting.name == name)


def test_nothing_is_changed_at_first() -> None:
    assert form.changed(as_shown(PRESET), PRESET) == {}


def test_only_what_was_changed_comes_back_and_trains() -> None:
    values = {
        **as_shown(PRESET),
        "adapter.rank": 32.0,
        "adapter.kind": "lora",
        "adapter.rank_pattern": "mid=4\n\n up =8 ",
        "loss.snr_gamma": 5.0,
        "loss.loss_weighting": "min_snr",
        "prior.with_prior_preservation": not PRESET.prior.with_prior_preservation,
        "run.checkpointing_steps": None,  # emptied: the preset's
    }
    given = form.changed(values, PRESET)
    assert given == {
        "adapter.rank": 32,
        "adapter.kind": "lora",
        "adapter.rank_pattern": ["mid=4", "up =8"],
        "loss.snr_gamma": 5.0,
        "loss.loss_weighting": "min_snr",
        "prior.with_prior_preservation": not PRESET.prior.with_prior_preservation,
    }
    assert json.loads(json.dumps(given)) == given
    assert isinstance(given["adapter.rank"], int)


def test_a_choice_that_may_be_left_out_can_be_automatic_again() -> None:
    preset = TrainConfig(run={"mixed_precision": "bf16"})
    values = {**as_shown(preset), "run.mixed_precision": form.AUTOMATIC}
    assert form.changed(values, preset) == {"run.mixed_precision": None}


def test_the_command_means_the_same(tmp_path: Any) -> None:
    studio = FakeStudio(tmp_path)
    subject = studio.subjects.create_from_sample("teapot")
    overrides = {
        "adapter.rank": 32,
        "prior.with_prior_preservation": False,
        "adapter.rank_pattern": ["mid=4", "up=8"],
        "optim.learning_rate": 0.00123,
        "loss.snr_gamma": None,
    }
    config = studio.jobs.config(subject.id, "balanced", overrides)
    words = shlex.split(form.as_command(config, overrides))
    assert words[:2] == ["dora-diffusion", "train"]
    parsed = parse(TrainConfig, words[2:], "train")
    for name in [*overrides, "data.class_noun", "data.trigger", "run.max_train_steps", "preset"]:
        assert value_at(parsed, name) == value_at(config, name), name


def test_the_summary_tells_the_changes_and_marks_the_controls() -> None:
    html = advanced.summary_html({"adapter.rank": 32, "adapter.targets": "<b>"}, PRESET, "rank <must>")
    assert 'data-changed="2"' in html and f"(usually {PRESET.adapter.rank})" in html
    assert "#set-adapter-rank " in html and 'data-do="reset" data-name="adapter.rank"' in html
    assert "&lt;b&gt;" in html and "rank &lt;must&gt;" in html and "<b></b>" not in html


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"run.output_dir": "/etc"}', '{"nonsense": 1}', "7"])
def test_what_the_browser_claims_is_checked(text: str) -> None:
    assert advanced.read(text) == {}


def test_known_overrides_are_read() -> None:
    assert advanced.read('{"adapter.rank": 4, "run.output_dir": "/etc"}') == {"adapter.rank": 4}
