"""Bases on disk, and questions to the real programs: what do you make of this file?"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path

from kit import Answer, Base, answer_to
from original_layout import original_layout
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dora_diffusion.formats.verify import BaseWeights
from dora_diffusion.models.base import BaseModel

# Where a program's checkout lies; diffusers and PEFT are installed.
VARIABLES = {
    "comfyui": "DORA_ORACLE_COMFYUI",
    "forge": "DORA_ORACLE_FORGE",
    "a1111": "DORA_ORACLE_A1111",
    "lycoris": "DORA_ORACLE_LYCORIS",
    "sd_scripts": "DORA_ORACLE_SD_SCRIPTS",
}
INSTALLED = ("diffusers", "peft")
READERS = (*INSTALLED, *VARIABLES)
HERE = Path(__file__).parent


def why_absent(reader: str) -> str:
    """Why a program cannot be asked; empty if it can."""
    if reader in INSTALLED:
        return ""
    variable = VARIABLES[reader]
    place = os.environ.get(variable)
    if not place:
        return f"{variable} names no checkout of {reader}"
    return "" if Path(place).is_dir() else f"{variable} names {place}, which is no folder"


@dataclass(frozen=True)
class BaseOnDisk:
    """A loaded base, and its folder for the workers."""

    model: BaseModel
    folder: Path

    @cached_property
    def weights(self) -> BaseWeights:
        """Every Linear and Conv2d by canonical name."""
        return BaseWeights(self.model.family.name, all_weights(self.model))

    @cached_property
    def original(self) -> dict[str, str]:
        """The original path of every layer of the UNet, found by its numbers in the checkpoint."""
        prefix = "model.diffusion_model."
        checkpoint = original_layout(self.model.pipe)
        by_content = {_content(tensor): name for name, tensor in checkpoint.items() if name.startswith(prefix)}
        return {
            name.removeprefix("unet."): by_content[_content(weight)].removeprefix(prefix).removesuffix(".weight")
            for name, weight in self.weights.weights.items()
            if name.startswith("unet.")
        }


def all_weights(model: BaseModel) -> dict[str, Tensor]:
    """The weight of every Linear and Conv2d of UNet and text encoders."""
    return {
        model.layer_name(component, path): part.weight.detach().clone()
        for component, root in model.adaptable().items()
        for path, part in root.named_modules()
        if isinstance(part, nn.Linear | nn.Conv2d)
    }


def _content(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().numpy().tobytes()


def put_on_disk(model: BaseModel, folder: Path) -> BaseOnDisk:
    """Write what the workers read of a base."""
    base = BaseOnDisk(model, folder)
    folder.mkdir(parents=True)
    model.pipe.save_pretrained(folder / "pipeline")
    save_file({k: w.contiguous() for k, w in base.weights.weights.items()}, folder / "weights.safetensors")
    checkpoint = {k: t.contiguous().clone() for k, t in original_layout(model.pipe).items()}
    save_file(checkpoint, folder / "checkpoint.safetensors")
    facts = {"family": model.family.name, "original": base.original}
    (folder / "facts.json").write_text(json.dumps(facts))
    return base


def ask(reader: str, questions: Sequence[tuple[BaseOnDisk, Path]], folder: Path) -> list[Answer]:
    """What ``reader`` makes of each file; every program but the installed ones runs in a process of its own."""
    if reader in INSTALLED:
        read = import_module(f"{reader}_worker").read
        return [answer_to(read, Base(base.folder), file) for base, file in questions]
    folder.mkdir(parents=True, exist_ok=True)
    answers = [folder / f"{k}.safetensors" for k in range(len(questions))]
    jobs = [
        {"base": str(base.folder), "file": str(file), "answer": str(answer)}
        for (base, file), answer in zip(questions, answers, strict=True)
    ]
    (folder / "jobs.json").write_text(json.dumps(jobs))
    command = [sys.executable, HERE / f"{reader}_worker.py", os.environ[VARIABLES[reader]], folder / "jobs.json"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(HERE)})
    if done.returncode:
        raise RuntimeError(f"{reader} could not be run:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return [read_answer(answer) for answer in answers]


def read_answer(path: Path) -> Answer:
    """What a worker wrote."""
    with safe_open(path, "pt") as file:
        facts = json.loads(file.metadata()["facts"])
        return Answer({key: file.get_tensor(key) for key in file.keys()}, **facts)  # noqa: SIM118


def worst(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> tuple[float, float]:
    """The worst layer's ``||W_theirs - W_ours||`` against ``||W_ours||`` and against ``||W_ours - W0||``.

    A layer that one side lacks is the base's there; a layer that only they change counts as changed without bound.
    """
    of_weight = of_change = 0.0
    for name in {*ours, *theirs}:
        weight = base[name].double()
        wanted, given = ours.get(name, weight).double(), theirs.get(name, weight).double()
        error, change = float((given - wanted).norm()), float((wanted - weight).norm())
        of_weight = max(of_weight, error / float(wanted.norm()))
        of_change = max(of_change, error / change if change else (float("inf") if error else 0.0))
    return of_weight, of_change


def version(reader: str) -> str:
    """What was asked: a package's version, or a checkout's commit and its date."""
    from importlib.metadata import version as installed

    if reader == "diffusers":
        return ", ".join(f"{name} {installed(name)}" for name in ("diffusers", "peft", "transformers"))
    if reader == "peft":
        return f"peft {installed(reader)}"
    place = os.environ[VARIABLES[reader]]
    shown = subprocess.run(
        ["git", "-C", place, "log", "-1", "--format=%h, %cd", "--date=short"], capture_output=True, text=True
    )
    return shown.stdout.strip() or "no commit known"
