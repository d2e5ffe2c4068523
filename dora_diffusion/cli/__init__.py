"""``dora-diffusion <command>``: parse, call, print."""

import logging
import os
import sys

from dora_diffusion.errors import DoraError
from dora_diffusion.registry import COMMANDS

SUMMARIES = {
    "demo": "train and draw a sample subject on the embedded base; ends with a picture",
    "train": "teach a base model one subject from a folder of photos",
    "generate": "draw pictures with an adapter, merged or live, at any strength",
    "merge": "write a plain diffusers pipeline with the adapter merged in",
    "export": "write the adapter as another tool reads it",
    "inspect": "say what an adapter file holds",
    "doctor": "check this machine, and photos before they are used",
    "app": "open the web page",
}

USAGE = "usage: dora-diffusion <command> [options]        dora-diffusion <command> --help"


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status: 0, 2 for a user's mistake, 1 for anything else."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
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
    except DoraError as error:
        if debug:
            raise
        print(f"dora-diffusion {given[0]}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if debug:
            raise
        first = (str(error).splitlines() or ["no message"])[0]
        print(f"dora-diffusion {given[0]}: unexpected {type(error).__name__}: {first}", file=sys.stderr)
        print("This is a fault of the program, not yours. Run it again with --debug to see where, and report it.", file=sys.stderr)
        return 1


def usage() -> str:
    """The list of commands."""
    rows = [f"  {name:<10} {SUMMARIES[name]}" for name in COMMANDS]
    return "\n".join([USAGE, "", "Teach a Stable Diffusion model one subject from a few photos: DreamBooth with DoRA.", "", *rows, "", "  --debug    show where an error comes from"])


def _set_up_process() -> None:
    """Quiet libraries, plain warnings; before anything heavy is imported, which is when they read these."""
    os.environ.setdefault("KMP_BLOCKTIME", "0")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    logging.basicConfig(format="warning: %(message)s", level=logging.WARNING, stream=sys.stderr)
