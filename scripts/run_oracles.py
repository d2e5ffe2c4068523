"""Ask the real programs what they make of every format, and print Markdown: a table, and what was asked when.

diffusers and PEFT are the installed ones; the others run from checkouts that variables name (see ``VARIABLES`` in
``tests/oracles/asking.py``), each in a process of its own. A program without a checkout is left out, and said so.

    DORA_ORACLE_COMFYUI=~/ComfyUI DORA_ORACLE_FORGE=~/forge ... python scripts/run_oracles.py > table.md
"""

import argparse
import datetime
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / "helpers"), str(ROOT / "tests" / "oracles")]

from asking import READERS, ask, version, why_absent, worst  # type: ignore[import-not-found]  # noqa: E402
from exhibits import FAMILIES, base_of, exports  # type: ignore[import-not-found]  # noqa: E402

from dora_diffusion.formats.verify import readers_of  # noqa: E402
from dora_diffusion.formats.verify.compare import OF_CHANGE, OF_WEIGHT  # noqa: E402
from dora_diffusion.registry import FORMATS  # noqa: E402

TITLES = {"sd1": "SD 1.5", "sd2": "SD 2.1", "sdxl": "SDXL"}
WHAT = {
    "attention": "DoRA, the UNet's attention",
    "everything": "DoRA, every layer and the text encoders",
    "LoRA": "LoRA, every layer and the text encoders",
}


def main() -> None:
    """Ask, print, and exit with 1 if a format is not right in a program that it is for."""
    parser = argparse.ArgumentParser(description="Ask the real programs what they make of every format.")
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    families = parser.parse_args().families
    present = [program for program in READERS if not why_absent(program)]
    with tempfile.TemporaryDirectory() as folder:
        found = {family: _ask_all(family, present, Path(folder)) for family in families}
    for what, title in WHAT.items():
        print(f"\n**{title}**\n")
        _table(what, found, present)
    print("\n| program | version | asked |\n|---|---|---|")
    for program in READERS:
        asked = version(program) if program in present else f"not asked: {why_absent(program)}"
        print(f"| {program} | {asked} | {datetime.datetime.now(datetime.timezone.utc).date()} |")
    broken = [cell for cells in found.values() for cell in cells.values() if cell["promised"] and not cell["right"]]
    sys.exit(1 if broken else 0)


def _ask_all(family: str, programs: list[str], folder: Path) -> dict[tuple[str, str, str], dict[str, Any]]:
    """(what, format, program) to what came of it."""
    shown = list(exports(base_of(family, folder), folder / f"{family}-files"))
    cells = {}
    for program in programs:
        mine = [exhibit for exhibit in shown if exhibit.file.is_dir() == (program == "peft")]
        questions = [(exhibit.base, exhibit.file) for exhibit in mine]
        for exhibit, answer in zip(mine, ask(program, questions, folder / f"{family}-{program}"), strict=True):
            name, _, what = exhibit.name.partition(" of ")
            cells[what, name, program] = _judged(exhibit, answer) | {"promised": program in readers_of(name)}
        print(f"{family}: {program} answered", file=sys.stderr)
    return cells


def _judged(exhibit: Any, answer: Any) -> dict[str, Any]:
    if answer.refusal or not answer.weights:
        return {"right": False, "said": "refuses" if answer.refusal else "reads nothing"}
    of_weight, of_change = worst(exhibit.wanted, answer.weights, exhibit.base.weights.weights)
    right = of_weight <= OF_WEIGHT and of_change <= OF_CHANGE
    if right:
        return {"right": True, "said": f"{of_weight:.0e} / {of_change:.0e}"}
    share = sum(name in answer.weights for name in exhibit.wanted) / len(exhibit.wanted)
    part = "" if share == 1 else f", {share:.0%} of the layers"
    return {"right": False, "said": f"wrong: {of_weight:.0e}{part}"}


def _table(what: str, found: dict[str, dict[tuple[str, str, str], dict[str, Any]]], programs: list[str]) -> None:
    print(f"| format | base | {' | '.join(programs)} |\n|{'---|' * (len(programs) + 2)}")
    for name in FORMATS:
        for family, cells in found.items():
            row = [_cell(cells.get((what, name, program))) for program in programs]
            if any(row):
                print(f"| `{name}` | {TITLES[family]} | {' | '.join(row)} |")


def _cell(cell: dict[str, Any] | None) -> str:
    if cell is None:
        return ""
    return f"**{cell['said']}**" if cell["right"] else str(cell["said"])


if __name__ == "__main__":
    main()
