"""Help: fast, complete, and without torch."""

import os
import subprocess
import sys
import time

import pytest

import dora_diffusion
from dora_diffusion.cli import SUMMARIES, main
from dora_diffusion.registry import ADAPTERS, ATTENTION_BACKENDS, COMMANDS, FORMATS, OPTIMIZERS, SAMPLERS

Capture = pytest.CaptureFixture[str]


def run_in_fresh_process(*arguments: str) -> tuple[str, float]:
    """What the command prints, its heavy imports in the last line, and its seconds."""
    code = (
        "import sys; from dora_diffusion.cli import main; status = main(sys.argv[1:]);"
        "print(status, *sorted({'torch', 'numpy', 'diffusers', 'transformers', 'gradio'} & set(sys.modules)))"
    )
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout, time.perf_counter() - began


def test_help_is_fast_and_imports_nothing_heavy() -> None:
    runs = [run_in_fresh_process("--help") for _ in range(5)]
    assert min(seconds for _, seconds in runs) < 0.6
    assert {text.splitlines()[-1] for text, _ in runs} == {"0"}
    assert all(f"  {name} " in runs[0][0] for name in COMMANDS)


@pytest.mark.parametrize("command", ["train", "generate"])
def test_help_of_a_command_imports_nothing_heavy(command: str) -> None:
    text, _ = run_in_fresh_process(command, "--help")
    assert text.splitlines()[-1] == "0"
    assert f"usage: dora-diffusion {command} [CONFIG.yaml]" in text


def test_the_choices_are_in_the_help(capsys: Capture) -> None:
    assert main(["train", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert f"adapter kind: {', '.join(ADAPTERS)}" in text
    assert f"optimizer: {', '.join(OPTIMIZERS)}" in text
    assert f"attention backend: auto, {', '.join(ATTENTION_BACKENDS)}" in text
    assert "a preset (attn, attn-mlp, full) or a regex" in text and "--rank INT" in text and "(default: 16)" in text
    assert main(["generate", "--help"]) == 0
    assert ", ".join(SAMPLERS) in capsys.readouterr().out
    assert main(["export", "-h"]) == 0
    assert ", ".join(FORMATS) in " ".join(capsys.readouterr().out.replace("│", " ").split())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: Capture) -> None:
    assert main([command, "--help"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"usage: dora-diffusion {command} ") and said.err == ""


def test_inspect_names_its_file(capsys: Capture) -> None:
    main(["inspect", "--help"])
    assert capsys.readouterr().out.startswith("usage: dora-diffusion inspect FILE ")


def test_every_command_has_a_summary(capsys: Capture) -> None:
    assert SUMMARIES.keys() == set(COMMANDS)
    for arguments in ([], ["-h"], ["--help"], ["help"]):
        assert main(arguments) == 0
        text = capsys.readouterr().out
        assert all(f"{name:<10} {summary}" in text for name, summary in SUMMARIES.items())


def test_version(capsys: Capture) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"dora-diffusion {dora_diffusion.__version__}\n"


@pytest.mark.parametrize(("word", "meant"), [("trian", "train"), ("generat", "generate"), ("--bogus", None)])
def test_an_unknown_command_is_a_mistake(word: str, meant: str | None, capsys: Capture) -> None:
    assert main([word]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"dora-diffusion {word}: Unknown command {word!r}; known: {', '.join(COMMANDS)}.")
    assert told.endswith(f"Did you mean {meant!r}?\n" if meant else ".\n") and told.count("\n") == 1


@pytest.mark.parametrize("arguments", [["train", "--help"], ["--help"]])
def test_a_reader_that_leaves_early_is_no_fault(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)  # nobody reads: the first write fails, as after ``| head -1`` has left
    command = [sys.executable, "-m", "dora_diffusion.cli", *arguments]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert done.stderr == "" and done.returncode == 141
