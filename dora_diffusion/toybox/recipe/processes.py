"""Several processes of one machine that train together, one a GPU: which one this is, and what they tell each other.

``torchrun`` starts them and says in RANK, LOCAL_RANK and WORLD_SIZE who is who. Nothing here reads these but
``together``: a process that never entered it, such as one that writes captions, is alone, whatever it inherited.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dora_diffusion.errors import MachineError
from dora_diffusion.machine import import_what_keeps_a_process_group

# Gradients meet on the GPUs; the clock's shares stay on the CPUs, so that telling them waits for no GPU.
_BACKENDS = {"cuda": "cpu:gloo,cuda:nccl", "cpu": "gloo"}
_PATIENCE = timedelta(minutes=10)  # the others wait while the first one measures, draws and saves


@dataclass(frozen=True)
class Place:
    """Process ``rank`` of ``count``."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the one process that writes files and logs."""
        return self.rank == 0


ALONE = Place()


@contextmanager
def together(device: str) -> Iterator[str]:
    """Inside, this process works with those that ``torchrun`` started beside it; gives the device that is its own.

    Ends when all of them are done. Where there is only one process nothing is started, and ``device`` stays what it is.

    Raises:
        MachineError: the variables are not ``torchrun``'s, there are too few GPUs, or the others cannot be reached.
    """
    count = _variable("WORLD_SIZE", 1)
    if count <= 1:
        yield device
        return
    rank, local = _variable("RANK"), _variable("LOCAL_RANK")
    kind = torch.device(device).type
    if kind == "cuda":
        device = _own_gpu(local)
    import_what_keeps_a_process_group()
    try:
        dist.init_process_group(_BACKENDS.get(kind, "gloo"), rank=rank, world_size=count, timeout=_PATIENCE)
    except (RuntimeError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise MachineError(
            f"Process {rank} of {count} does not reach the others ({reason}). Start all of them with torchrun "
            "--standalone --nproc_per_node, or none of them: unset WORLD_SIZE."
        ) from None
    try:
        yield device
        wait_for_all()
    finally:
        dist.destroy_process_group()


def here() -> Place:
    """Which of the processes this is."""
    if dist.is_available() and dist.is_initialized():
        return Place(dist.get_rank(), dist.get_world_size())
    return ALONE


def wait_for_all() -> None:
    """Return when every process has come this far."""
    if here().count > 1:
        dist.barrier()


def agreed(value: float) -> float:
    """The first process's ``value``, in every process; all of them have to ask."""
    if here().count == 1:
        return value
    told = torch.tensor(value, dtype=torch.float64)
    dist.broadcast(told, 0)
    return told.item()


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Put the mean over all processes in the place of the gradients, in one exchange.

    A gradient that is missing here counts as 0: it may be there in another process, and all must send the same amount.
    """
    count = here().count
    if count == 1:
        return
    gradients = [_gradient(parameter) for parameter in parameters]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat)
    flat /= count
    parts = flat.split([gradient.numel() for gradient in gradients])
    means = [part.view(gradient.shape) for part, gradient in zip(parts, gradients, strict=True)]
    torch._foreach_copy_(gradients, means)


def _gradient(parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def _own_gpu(local: int) -> str:
    """The GPU of the machine's process ``local``, from now on the current one: Triton launches there."""
    if local >= torch.cuda.device_count():
        raise MachineError(
            f"There is one process a GPU, and torch finds {torch.cuda.device_count()} GPUs here, too few for process "
            f"{local + 1}. Give torchrun --nproc_per_node {torch.cuda.device_count()}, or this script --device cpu."
        )
    torch.cuda.set_device(local)
    return f"cuda:{local}"


def _variable(name: str, default: int | None = None) -> int:
    """A number that ``torchrun`` sets."""
    text = os.environ.get(name, "" if default is None else str(default))
    if not text.isdigit():
        raise MachineError(
            f"The environment variable {name} must be a whole number where several processes train together, got "
            f"{text!r}. Start them with torchrun --standalone --nproc_per_node, or unset WORLD_SIZE for one process."
        )
    return int(text)
