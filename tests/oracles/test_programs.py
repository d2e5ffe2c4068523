"""The programs' own code on our files, and beside it what ``formats.verify`` says they would do.

diffusers and PEFT always run; the others where a variable names a checkout (``asking.VARIABLES``), and then all of them
with ``scripts/run_oracles.py``.
"""

from collections.abc import Iterator

import pytest
import torch
from asking import READERS as PROGRAMS
from asking import Answer, ask, why_absent, worst
from exhibits import FAMILIES, Exhibit, base_of, exports, met

from dora_diffusion.formats.verify import MisfitError, read_adapter_file, readers_of
from dora_diffusion.formats.verify.compare import OF_CHANGE, OF_WEIGHT
from dora_diffusion.registry import FORMATS, READERS


@pytest.fixture(scope="module", params=FAMILIES)
def shown(request, tmp_path_factory) -> list[Exhibit]:
    """All files on one family."""
    folder = tmp_path_factory.mktemp(request.param)
    base = base_of(request.param, folder)
    return [*exports(base, folder / "ours"), *met(base, folder / "met")]


@pytest.fixture(scope="module")
def said(shown, tmp_path_factory):
    """What a program makes of them all; asked once."""
    answers: dict[str, list[Answer]] = {}

    def of(program: str) -> Iterator[tuple[Exhibit, Answer]]:
        if reason := why_absent(program):
            pytest.skip(reason)
        # PEFT reads folders, and nobody else does.
        mine = [exhibit for exhibit in shown if exhibit.file.is_dir() == (program == "peft")]
        if program not in answers:
            questions = [(exhibit.base, exhibit.file) for exhibit in mine]
            answers[program] = ask(program, questions, tmp_path_factory.mktemp(program))
        return zip(mine, answers[program], strict=True)

    return of


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_format_gives_the_very_weights_in_the_program_it_is_for(program, said) -> None:
    judged = 0
    for exhibit, answer in said(program):
        if exhibit.state is None or program not in readers_of(exhibit.name.partition(" ")[0]):
            continue
        assert not answer.refusal, f"{exhibit.name}: {answer.refusal}"
        of_weight, of_change = worst(exhibit.wanted, answer.weights, exhibit.base.weights.weights)
        assert of_weight <= OF_WEIGHT, f"{exhibit.name}: {of_weight:.1e} of a weight"
        assert of_change <= OF_CHANGE, f"{exhibit.name}: {of_change:.1e} of a change"
        judged += 1
    promised = [name for name in FORMATS if program in readers_of(name)]
    assert judged == 3 * len(promised)


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_rules_written_here_are_the_programs_own(program, said) -> None:
    reader = READERS.load(program)
    for exhibit, answer in said(program):
        weights = exhibit.base.weights.weights
        file = read_adapter_file(exhibit.file)
        reading = reader.find(file, exhibit.base.weights)
        ours, stumbles = {}, 0
        with torch.no_grad():
            for name, found in reading.layers.items():
                try:
                    ours[name] = reader.merge(found, weights[name])
                except MisfitError:
                    stumbles += 1
        if reader.stops and stumbles and not reading.refusal:
            assert answer.refusal, f"{exhibit.name}: {stumbles} layers do not fit, and it went on"
            continue
        assert bool(reading.refusal) == bool(answer.refusal), f"{exhibit.name}: {reading.refusal} / {answer.refusal}"
        of_weight, of_change = worst(ours, answer.weights, weights)
        assert of_weight <= OF_WEIGHT and of_change <= OF_CHANGE, f"{exhibit.name}: {of_weight:.1e}, {of_change:.1e}"
        if answer.left_over is not None:
            assert sorted(answer.left_over) == sorted(reading.left_over), exhibit.name


def test_every_format_is_proved_by_a_reader_or_named_here() -> None:
    judged_otherwise = {"lora", "merged"}
    assert {name for name in FORMATS if not readers_of(name)} <= judged_otherwise


def test_every_reader_has_its_program() -> None:
    assert set(PROGRAMS) == set(READERS)
