"""The import law: a room imports rooms of lower rank and itself. And what importing the package costs."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import dora_diffusion

PACKAGE = Path(dora_diffusion.__file__).parent

RANKS = {
    "ground": 0,
    "config": 1,
    "adapters": 2,
    "models": 2,
    "data": 2,
    "formats": 3,
    "toybox": 3,
    "inference": 4,
    "evaluation": 5,
    "training": 6,
    "studio": 7,
    "cli": 8,
}
# The files at the top: they have no room of their own, and may use each other.
GROUND = ("dora_diffusion", "errors", "registry", "machine")


def room_of(module: str) -> str:
    """The room of a module of the package, given by its dotted name."""
    name = module.split(".")[1] if "." in module else module
    return "ground" if name in GROUND else name


def imported(source: str) -> Iterator[str]:
    """Dotted names of the package's modules that ``source`` imports, wherever in it: at the top, in functions, for
    types.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            # ``from dora_diffusion import machine`` names a module, ``from dora_diffusion.errors import X`` does not.
            bare = node.module == "dora_diffusion"
            names = [f"dora_diffusion.{alias.name}" for alias in node.names] if bare else [str(node.module)]
        else:
            names = [str(argument) for argument in _loaded_by_name(node)]
        yield from (name for name in names if name.split(".")[0] == "dora_diffusion")


def _loaded_by_name(node: ast.AST) -> list[object]:
    """The constant arguments of ``import_module("...")`` and ``__import__("...")``."""
    if not isinstance(node, ast.Call):
        return []
    function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if function not in ("import_module", "__import__"):
        return []
    return [argument.value for argument in node.args if isinstance(argument, ast.Constant)]


def violations(source: str, room: str) -> list[str]:
    """The modules that a file of ``room`` must not import and does."""
    found = []
    for module in imported(source):
        name = module.split(".")[1] if "." in module else module
        # A public name of the package, or its version: the room it is fetched from.
        public = dora_diffusion._PUBLIC.get(name, "dora_diffusion" if name.startswith("__") else module)
        other = room_of(public)
        if other != room and RANKS[other] >= RANKS[room]:
            found.append(module)
    return found


FILES = sorted(PACKAGE.rglob("*.py"))


def room_of_file(path: Path) -> str:
    return room_of(".".join(["dora_diffusion", *path.relative_to(PACKAGE).with_suffix("").parts[:1]]))


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(PACKAGE)) for path in FILES])
def test_a_file_imports_only_lower_rooms_and_its_own(path: Path) -> None:
    room = "ground" if path.parent == PACKAGE else room_of_file(path)
    assert violations(path.read_text(encoding="utf-8"), room) == []


def test_every_room_has_a_rank() -> None:
    rooms = {room_of_file(path) for path in FILES if path.parent != PACKAGE}
    assert len(FILES) > 50 and rooms <= RANKS.keys() and len(rooms) >= 9
    assert {path.stem for path in FILES if path.parent == PACKAGE} <= {"__init__", *GROUND}


@pytest.mark.parametrize(
    ("source", "room", "bad"),
    [
        ("from dora_diffusion.training import train", "studio", []),
        ("import dora_diffusion.cli.parse", "studio", ["dora_diffusion.cli.parse"]),
        ("def f():\n    from dora_diffusion.models import load_base", "adapters", ["dora_diffusion.models"]),
        (
            "if TYPE_CHECKING:\n    from dora_diffusion.formats.files import x",
            "models",
            ["dora_diffusion.formats.files"],
        ),
        ("from dora_diffusion import machine, errors", "config", []),
        ("from dora_diffusion import train", "formats", ["dora_diffusion.train"]),
        ("from dora_diffusion import inference", "toybox", ["dora_diffusion.inference"]),
        ("from dora_diffusion.config import TrainConfig", "ground", ["dora_diffusion.config"]),
        ("import_module('dora_diffusion.training.run')", "models", ["dora_diffusion.training.run"]),
        ("from torch import nn", "ground", []),
    ],
)
def test_the_law_sees_every_kind_of_import(source: str, room: str, bad: list[str]) -> None:
    assert violations(source, room) == bad


def new_modules(statement: str) -> set[str]:
    """Top-level modules that ``statement`` imports into a fresh interpreter, the standard library left out."""
    code = (
        f"import sys; before = set(sys.modules); {statement};"
        "print(*{name.split('.')[0] for name in set(sys.modules) - before})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name for name in done.stdout.split() if name not in sys.stdlib_module_names}


def test_importing_the_package_imports_nothing_else() -> None:
    assert new_modules("import dora_diffusion, dora_diffusion.registry, dora_diffusion.errors") == {"dora_diffusion"}


def test_config_never_imports_torch() -> None:
    found = new_modules(
        "import dora_diffusion.config.files, dora_diffusion.config.fields; dora_diffusion.config.TrainConfig()"
    )
    assert "pydantic" in found
    assert not found & {
        "torch",
        "numpy",
        "PIL",
        "diffusers",
        "transformers",
        "accelerate",
        "safetensors",
        "gradio",
        "tyro",
    }


def test_every_public_name_resolves_and_there_are_few() -> None:
    names = dora_diffusion.__all__
    assert len(set(names)) == len(names) <= 12
    for name in names:
        assert getattr(dora_diffusion, name).__name__ == name
        assert name in dir(dora_diffusion)


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        dora_diffusion.trian  # noqa: B018
