"""Whether a file gives the weights it should, in the hands of the programs that read it."""

from dora_diffusion.formats.verify.compare import LayerCheck, Merged, Verification, as_json, verify
from dora_diffusion.formats.verify.reading import AdapterFile, BaseWeights, Found, Reader, Reading
from dora_diffusion.formats.verify.report import notes, table

__all__ = [
    "AdapterFile",
    "BaseWeights",
    "Found",
    "LayerCheck",
    "Merged",
    "Reader",
    "Reading",
    "Verification",
    "as_json",
    "notes",
    "table",
    "verify",
]
