"""``dora-diffusion <command>``: parse, call, print."""

import errno
import logging
import os
import sys

from dora_diffusion.errors import DoraError
from dora_diffusion.machine import hush_libraries
from dora_diffusion.registry import COMMANDS

SUMMARIES = {
    "demo": "train and draw a sample subject on the embedded base; ends with a picture",
    "train": "teach a base model one subject from a folder of photos",
    "generate": "draw pictures with an adapter, merged or live, at any strength",
    "merge": "write a plain diffusers pipeline with the adapter merged in",
    "export": "write the adapter as another tool reads it",
    "convert": "rewrite an adapter file for another tool, as a plain LoRA where that is all it knows",
    "resize": "give an adapter another rank, and say what that costs",
    "combine": "add several adapters up by weight, into one",
    "extract": "make an adapter from a base and a model that was tuned from it",
    "inspect": "say what an adapter file holds",
    "verify": "say whether a file gives a run's weights in the programs that read it",
    "evaluate": "measure what an adapter learned: likeness, prompt-following, leakage, drift",
    "doctor": "check this machine, and photos before they are used",
    "app": "open the web page",
}

USAGE = "usage: dora-diffusion <command> [options]        dora-diffusion <command> --help"

# What a disk or its owner refuses; any other OSError is a fault of the program.
_REFUSALS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS}
_PIPE_CLOSED = 141  # what a shell reports for a program that SIGPIPE ended


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status: 0, 2 for a user's mistake, 128 + n after signal n, else 1."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
    try:
        status = _answer(given)
        sys.stdout.flush()  # here, where a reader that has left is no fault, and not at the interpreter's end
        return status
    except BrokenPipeError:  # ``... --help | head -1``
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _PIPE_CLOSED
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if debug:
            raise
        return _tell(given[0], error)


def usage() -> str:
    """The list of commands."""
    rows = [f"  {name:<10} {SUMMARIES[name]}" for name in COMMANDS]
    about = "Teach a Stable Diffusion model one subject from a few photos: DreamBooth with DoRA."
    return "\n".join([USAGE, "", about, "", *rows, "", "  --debug    show where an error comes from"])


def _answer(given: list[str]) -> int:
    if not given or given[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if given[0] == "--version":
        from dora_diffusion import __version__

        print(f"dora-diffusion {__version__}")
        return 0
    _set_up_process()
    try:
        return int(COMMANDS.load(given[0])(given[1:]))
    except SystemExit as ending:  # how tyro leaves after --help
        return int(ending.code or 0)


def _tell(command: str, error: Exception) -> int:
    """Say on stderr what went wrong, in a line or two, and return the exit status."""
    if isinstance(error, DoraError):
        print(f"dora-diffusion {command}: {error}", file=sys.stderr)
        return 2
    if isinstance(error, OSError) and error.errno in _REFUSALS:
        what = f"{error.filename} cannot be used: {error.strerror}" if error.filename else error.strerror
        advice = "Free some space, or choose a place you may write to."
        print(f"dora-diffusion {command}: {what}. {advice}", file=sys.stderr)
        return 2
    first = (str(error).splitlines() or ["no message"])[0]
    print(f"dora-diffusion {command}: unexpected {type(error).__name__}: {first}", file=sys.stderr)
    advice = "Run it again with --debug to see where, and report it."
    print(f"This is a fault of the program, not yours. {advice}", file=sys.stderr)
    return 1


def _set_up_process() -> None:
    """Quiet libraries, plain warnings; before anything heavy is imported, which is when they read these."""
    os.environ.setdefault("KMP_BLOCKTIME", "0")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    shown = logging.StreamHandler(sys.stderr)
    shown.setLevel(logging.WARNING)  # a part that logs more, to a file of its own, prints no more for that
    logging.basicConfig(format="warning: %(message)s", level=logging.WARNING, handlers=[shown])
    hush_libraries()
