"""What the workers share: a job, an answer, stand-ins for packages that a checkout imports and never needs here.

A worker runs one program's own code in a process of its own:

    python comfyui_worker.py CHECKOUT jobs.json

A job names the folder of a base, an adapter file and where the answer goes. A base's folder holds ``weights`` (every
Linear and Conv2d by canonical name), ``checkpoint`` (all of it in the original layout), ``pipeline`` (diffusers'
folder) and ``facts.json``: the family, and the original path of every layer of the UNet.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import json
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


@dataclass(frozen=True)
class Answer:
    """What a program made of a file: the weights it changed, what it left over (None: it does not say), or why it loads
    nothing.
    """

    weights: Mapping[str, Tensor]
    left_over: list[str] | None = None
    refusal: str = ""


class Base:
    """A base's folder, read."""

    def __init__(self, folder: Path):
        self.folder = folder
        facts = json.loads((folder / "facts.json").read_text())
        self.family: str = facts["family"]
        self.original: dict[str, str] = facts["original"]
        self.weights = load_file(folder / "weights.safetensors")

    def unet(self) -> dict[str, tuple[str, Tensor]]:
        """diffusers' path to (original path, weight)."""
        named = {k.removeprefix("unet."): w for k, w in self.weights.items() if k.startswith("unet.")}
        return {path: (self.original[path], weight) for path, weight in named.items()}

    def text(self, component: str) -> dict[str, Tensor]:
        """Path below a text encoder, from ``text_model`` on, to weight."""
        prefix = f"{component}."
        return {k.removeprefix(prefix): w for k, w in self.weights.items() if k.startswith(prefix)}


Read = Callable[[Base, Path], Answer]


def work(read: Read) -> None:
    """Do the jobs named on the command line."""
    for job in json.loads(Path(sys.argv[2]).read_text()):
        write(answer_to(read, Base(Path(job["base"])), Path(job["file"])), Path(job["answer"]))


def answer_to(read: Read, base: Base, file: Path) -> Answer:
    """The answer; a program that crashes loads nothing."""
    try:
        with torch.no_grad():
            found = read(base, file)
    except Exception as error:
        return Answer({}, None, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
    changed = {k: w.clone() for k, w in found.weights.items() if not torch.equal(w, base.weights[k])}
    return Answer(changed, found.left_over, found.refusal)


def write(answer: Answer, path: Path) -> None:
    facts = {"left_over": answer.left_over, "refusal": answer.refusal}
    save_file({k: w.contiguous() for k, w in answer.weights.items()}, path, {"facts": json.dumps(facts)})


class _StandIn(types.ModuleType):
    """A module that has every attribute: a class that does nothing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        made = type(name, (), {"__init__": lambda self, *_, **__: None})
        setattr(self, name, made)
        return made


class StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the named packages, and whatever lies under them, where the machine has none."""

    def __init__(self, names: set[str]):
        self._names = names

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name.partition(".")[0] not in self._names:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: Any) -> types.ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        return


def stand_in(*names: str) -> None:
    """Stand-ins for those of the packages that are missing."""
    missing = {name for name in names if importlib.util.find_spec(name) is None}
    sys.meta_path.append(StandIns(missing))


def module(name: str, **attributes: Any) -> types.ModuleType:
    """A module made by hand, in place of a program's own."""
    made = types.ModuleType(name)
    made.__path__ = []
    vars(made).update(attributes)
    sys.modules[name] = made
    parent, _, child = name.rpartition(".")
    if parent in sys.modules:
        setattr(sys.modules[parent], child, made)
    return made


def layer(weight: Tensor) -> nn.Module:
    """A Linear or a Conv2d that has this weight, frozen."""
    if weight.ndim == 2:
        made: nn.Module = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    else:
        size = tuple(weight.shape[2:])
        made = nn.Conv2d(weight.shape[1], weight.shape[0], size, padding=size[0] // 2, bias=False)
    made.weight = nn.Parameter(weight.clone(), requires_grad=False)
    return made


def tree(layers: Mapping[str, nn.Module], kind: Callable[[str], type[nn.Module]] = lambda path: nn.Module) -> nn.Module:
    """Modules at dotted paths. ``kind`` gives the class of what stands between, by its path; "" is the root."""

    def made(path: str) -> nn.Module:
        node = object.__new__(kind(path))
        nn.Module.__init__(node)
        return node

    root = made("")
    for path, leaf in layers.items():
        node, *_ = [root]
        *heads, last = path.split(".")
        for k, head in enumerate(heads):
            if head not in node._modules:
                node.add_module(head, made(".".join(heads[: k + 1])))
            node = node._modules[head]
        node.add_module(last, leaf)
    return root
