"""The advanced settings as a form: one control for every setting of a training that the page does not ask for above."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args, get_origin

import annotated_types
import gradio as gr
from pydantic.fields import FieldInfo

from dora_diffusion.config import TrainConfig
from dora_diffusion.config.fields import value_at, walk
from dora_diffusion.registry import ADAPTERS, ATTENTION_BACKENDS, OPTIMIZERS
from dora_diffusion.studio.job_settings import KEPT
from dora_diffusion.studio.ui.controls import number_in, words_of

TITLES = {
    "model": "Base model",
    "data": "Photos and captions",
    "adapter": "Adapter",
    "prior": "Keeping the class",
    "loss": "Loss",
    "optim": "Optimizer",
    "run": "Run",
}
NAMED: dict[str, Sequence[str]] = {
    "adapter.kind": [*ADAPTERS],
    "optim.optimizer": [*OPTIMIZERS],
    "model.attention": ["auto", *ATTENTION_BACKENDS],
}
AUTOMATIC = "(automatic)"


@dataclass(frozen=True)
class Setting:
    """One setting of the form.

    ``kind``: "switch", "whole", "number", "choice", "lines" or "text"; ``optional``: it may be left out (None).
    """

    name: str
    kind: str
    optional: bool
    choices: tuple[str, ...]
    help: str

    @property
    def leaf(self) -> str:
        return self.name.rpartition(".")[2]

    @property
    def elem_id(self) -> str:
        return "set-" + self.name.replace(".", "-").replace("_", "-")

    @property
    def label(self) -> str:
        """ "Max train steps"."""
        words = self.leaf.replace("_", " ")
        return words[:1].upper() + words[1:]

    def shown(self, value: Any) -> Any:
        """A setting's value as its control shows it."""
        if self.kind == "lines":
            return "\n".join(value)
        if self.kind == "choice":
            return AUTOMATIC if value is None else str(value)
        if self.kind == "text":
            return "" if value is None else str(value)
        return words_of(value) if self.optional else value

    def given(self, shown: Any) -> Any:
        """What the control shows, as a setting's value; not checked."""
        if self.kind == "lines":
            return [line.strip() for line in str(shown or "").splitlines() if line.strip()]
        if self.kind == "choice":
            return None if shown == AUTOMATIC else shown
        if self.kind == "text":
            text = str(shown or "").strip()
            return None if self.optional and not text else text
        if self.kind in ("whole", "number") and self.optional:
            shown = number_in(shown)
        if self.kind == "whole" and isinstance(shown, float) and shown.is_integer():
            return int(shown)
        return shown

    def control(self, value: Any) -> Any:
        """The control, showing ``value``."""
        named: dict[str, Any] = {"label": self.label, "info": self.help, "elem_id": self.elem_id, "min_width": 240}
        shown = self.shown(value)
        if self.kind == "switch":
            return gr.Checkbox(shown, **named)
        if self.kind in ("whole", "number") and self.optional:
            return gr.Textbox(shown, max_lines=1, placeholder=AUTOMATIC, **named)
        if self.kind in ("whole", "number"):
            return gr.Number(shown, precision=0 if self.kind == "whole" else None, **named)
        if self.kind == "choice":
            return gr.Dropdown([*self.choices], value=shown, filterable=False, **named)
        return gr.Textbox(shown, lines=2 if self.kind == "lines" else 1, **named)


@cache
def settings() -> tuple[Setting, ...]:
    """Every setting that the form has, in the order of TrainConfig: all but those that the studio keeps to itself."""
    return tuple(_setting(name, field) for name, field in walk(TrainConfig) if name not in KEPT)


def changed(values: Mapping[str, Any], preset: TrainConfig) -> dict[str, Any]:
    """Dotted name to value, of the controls' ``values`` that are not the preset's: the overrides of a training.

    A number that was emptied is the preset's again, where it cannot be left out.
    """
    found = {}
    for setting in settings():
        value, usual = setting.given(values.get(setting.name)), value_at(preset, setting.name)
        if value != usual and not (value is None and not setting.optional):
            found[setting.name] = value
    return found


def as_command(config: TrainConfig, overrides: Mapping[str, Any]) -> str:
    """The command line that trains the same: ``config`` is the preset with the overrides."""
    words = ["dora-diffusion", "train"]
    asked = ["model.pretrained_model_name_or_path", "data.instance_data_dir", "data.class_noun", "data.trigger"]
    if config.preset:
        words += ["--preset", config.preset]
    for name in dict.fromkeys([*asked, "run.max_train_steps", *overrides]):
        words += _flag(name.rpartition(".")[2], value_at(config, name))
    return shlex.join(words)


def _flag(leaf: str, value: Any) -> list[str]:
    if value is None:
        return [f"--{leaf}", "None"]
    if isinstance(value, bool):
        return [f"--{leaf}" if value else f"--no_{leaf}"]
    if isinstance(value, list):
        return [f"--{leaf}", *map(str, value)]
    return [f"--{leaf}", str(value)]


def _setting(name: str, field: FieldInfo) -> Setting:
    kinds = [kind for kind in get_args(field.annotation) if kind is not type(None)]
    is_literal = get_origin(field.annotation) is Literal
    optional = not is_literal and type(None) in get_args(field.annotation)
    inner: Any = kinds[0] if optional else field.annotation
    choices: tuple[str, ...] = ()
    if name in NAMED:
        kind, choices = "choice", tuple(NAMED[name])
    elif get_origin(inner) is Literal:
        kind, choices = "choice", tuple(str(choice) for choice in get_args(inner))
    elif inner == list[str]:
        kind = "lines"
    else:
        kind = {bool: "switch", int: "whole", float: "number", str: "text"}[inner]
    if kind == "choice" and optional:
        choices = (AUTOMATIC, *choices)
    return Setting(name, kind, optional, choices, _sentence(field, kind))


def _sentence(field: FieldInfo, kind: str) -> str:
    """The help as a sentence, with the range."""
    text = field.description or ""
    limits = [_limit(item) for item in field.metadata]
    parts = [*filter(None, limits), *(["one a line"] if kind == "lines" else [])]
    within = f" ({', '.join(parts)})" if parts else ""
    return f"{text[:1].upper()}{text[1:]}{within}."


def _limit(item: Any) -> str:
    for kind, words, attribute in (
        (annotated_types.Ge, "at least", "ge"),
        (annotated_types.Gt, "above", "gt"),
        (annotated_types.Le, "at most", "le"),
        (annotated_types.Lt, "below", "lt"),
    ):
        if isinstance(item, kind):
            return f"{words} {getattr(item, attribute):g}"
    return ""
