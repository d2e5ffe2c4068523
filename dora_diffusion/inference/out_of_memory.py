"""Out of memory, told in plain words: what was being done, where, and which settings need less."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch

from dora_diffusion.errors import OutOfMemoryError
from dora_diffusion.machine import GIB

# What is said by allocators that have no error of their own.
_TELLTALES = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
_OTHERS = "ending other programs that use this memory"


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error says that memory did not suffice, on any device."""
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or (isinstance(error, RuntimeError) and any(word in str(error) for word in _TELLTALES))


@contextmanager
def memory_told(doing: str, remedies: Iterable[str], after: str = "") -> Iterator[None]:
    """Turn what runs out of memory inside into a message.

    Args:
        doing: "loading the base", as it follows "while".
        remedies: what needs less memory, the cheapest first; ending other programs is added.
        after: what is to be said besides, a sentence.

    Raises:
        OutOfMemoryError: it did, also where a library's failure to load was put into words already.
    """
    try:
        yield
    except Exception as error:
        if not (is_out_of_memory(error) or is_out_of_memory(error.__cause__)):
            raise
        helps = "; ".join([*remedies, _OTHERS])
        said = f"Out of memory while {doing}{_on_the_gpu()}. What helps: {helps}. {after}"
        raise OutOfMemoryError(said.rstrip()) from None


def on_device(device: torch.device) -> str:
    """ " on cuda:0 (23.7 GiB, of which this run holds 21.0)"; nothing on a CPU."""
    if device.type != "cuda":
        return ""
    taken, whole = torch.cuda.memory_reserved(device), torch.cuda.get_device_properties(device).total_memory
    return f" on {device} ({whole / GIB:.1f} GiB, of which this run holds {taken / GIB:.1f})"


def _on_the_gpu() -> str:
    """The same of the GPU that is in use, if this process has begun to use one."""
    used = torch.cuda.is_available() and torch.cuda.is_initialized()
    return on_device(torch.device("cuda", torch.cuda.current_device())) if used else ""
