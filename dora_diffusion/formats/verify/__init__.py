"""Whether a file gives the weights it should, in the hands of the programs that read it."""

from dora_diffusion.formats.verify.against import open_file, verify_against
from dora_diffusion.formats.verify.answers import RIGHT, answers
from dora_diffusion.formats.verify.compare import LayerCheck, Merged, Verification, as_json, verify, verify_all
from dora_diffusion.formats.verify.promises import readers_of
from dora_diffusion.formats.verify.proof import write_proved
from dora_diffusion.formats.verify.reading import (
    AdapterFile,
    BaseWeights,
    Found,
    MisfitError,
    Reader,
    Reading,
    read_adapter_file,
)
from dora_diffusion.formats.verify.report import first_fault, notes, table

__all__ = [
    "RIGHT",
    "AdapterFile",
    "BaseWeights",
    "Found",
    "LayerCheck",
    "Merged",
    "MisfitError",
    "Reader",
    "Reading",
    "Verification",
    "answers",
    "as_json",
    "first_fault",
    "notes",
    "open_file",
    "read_adapter_file",
    "readers_of",
    "table",
    "verify",
    "verify_against",
    "verify_all",
    "write_proved",
]
