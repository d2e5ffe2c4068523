"""What this machine has: devices, memory, disk, packages. Importing this imports nothing heavy."""

import logging
import os
import platform
import re
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from types import FrameType, ModuleType
from typing import Literal

from dora_diffusion.errors import MachineError

GIB = 1024**3
STOPPING = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Device:
    """Something torch can compute on.

    ``place`` is what ``torch.device`` takes. ``free_gib`` is 0 for a GPU that will not say: nothing can be had from it.
    ``bf16`` says that bfloat16 is computed in hardware; where it is False, torch is correct but slow.
    """

    place: str
    kind: Literal["cuda", "mps", "cpu"]
    name: str
    total_gib: float
    free_gib: float
    bf16: bool


@dataclass(frozen=True)
class Memory:
    """RAM this process may use, in GiB: the machine's, or a container's limit where that is lower."""

    total_gib: float
    available_gib: float


@dataclass(frozen=True)
class Missing:
    """A feature that does not work here, what it lacks, and what to do about it.

    ``optional``: nothing else works less well without it.
    """

    feature: str
    missing: str
    install: str
    optional: bool = False


# Distribution names, in the order they are told.
_PACKAGES = (
    *(
        "dora-diffusion",
        "torch",
        "diffusers",
        "transformers",
        "accelerate",
        "safetensors",
        "numpy",
        "pillow",
        "pydantic",
    ),
    *("tyro", "psutil", "peft", "gradio", "xformers", "bitsandbytes", "torchao"),
    *("prodigyopt", "schedulefree", "lion-pytorch", "matplotlib", "tensorboard", "wandb", "trackio", "pillow-heif"),
)

# (feature, package as it is imported, what to install)
_FEATURES = (
    ("the web studio", "gradio", "dora-diffusion[ui]"),
    ("attention by xformers", "xformers", "dora-diffusion[xformers]"),
    ("the tensorboard tracker", "tensorboard", "dora-diffusion[trackers]"),
    ("the wandb tracker", "wandb", "dora-diffusion[trackers]"),
    ("the trackio tracker", "trackio", "dora-diffusion[trackers]"),
    ("the optimizer adamw8bit", "bitsandbytes", "dora-diffusion[optim]"),
    ("the optimizer prodigy", "prodigyopt", "dora-diffusion[optim]"),
    ("the optimizer lion", "lion_pytorch", "dora-diffusion[optim]"),
    ("the optimizer adamw_schedule_free", "schedulefree", "dora-diffusion[optim]"),
    ("HEIC photos", "pillow_heif", "pillow-heif"),
)


def versions() -> dict[str, str | None]:
    """Version of Python and of every package that matters here, None where not installed. Imports none of them."""
    return {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}}


def devices() -> list[Device]:
    """Every device torch can use, the fastest kind first; the CPU is always last.

    Raises:
        MachineError: torch cannot be imported.
    """
    _import("torch", "It is needed for everything. Install it again: pip install --force-reinstall torch.")
    return [*_cuda_devices(), *_mps_devices(), _cpu_device()]


def memory() -> Memory:
    """RAM in GiB, honouring the limit of the control group a container runs in."""
    import psutil

    ram = psutil.virtual_memory()
    total, available = ram.total, ram.available
    limit = _cgroup_limit(Path("/sys/fs/cgroup"))
    if limit is not None:
        total, available = min(total, limit[0]), min(available, max(0, limit[0] - limit[1]))
    return Memory(total / GIB, available / GIB)


def peak_memory() -> int:
    """Bytes: the most RAM that this process ever held, files it mapped counted; true to a megabyte or so."""
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    if sys.platform == "linux":  # ru_maxrss would count what the parent held when it started this process
        line = re.search(r"^VmHWM:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
        if line is not None:
            return int(line[1]) * 1024
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024  # kilobytes, but on a Mac


def free_disk_gib(path: Path) -> float:
    """Room in GiB on the disk that holds ``path``, which need not exist yet."""
    return shutil.disk_usage(_nearest_existing(path)).free / GIB


def missing_for() -> list[Missing]:
    """The optional features that do not work here; empty on a machine that has everything."""
    gaps = [
        Missing(feature, f"{package} is not installed", f"pip install '{install}'", optional=True)
        for feature, package, install in _FEATURES
        if find_spec(package) is None
    ]
    return [*_gpu_gap(), *gaps]


def require_package(name: str, extra: str, why: str) -> ModuleType:
    """Import the optional package ``name`` and return it.

    Args:
        name: as it is imported ("gradio").
        extra: the extra of dora-diffusion that installs it ("ui").
        why: what needs it, as the subject of a sentence ("The studio").

    Raises:
        MachineError: it is not installed, or is and cannot be imported; the message names the extra.
    """
    return _import(name, f"{why} needs it: pip install 'dora-diffusion[{extra}]'.")


def import_what_keeps_a_process_group() -> None:
    """Import torch's module whose functions keep, as a default value, the process group there is at its import.

    Call it before a group is made. diffusers imports the module later: it would keep the group, whose threads then
    outlive the interpreter now and then, and a process that had done its work ends with SIGABRT.
    """
    import_module("torch.distributed.nn.functional")


def launched_processes() -> int:
    """How many processes a launcher (accelerate, torchrun) started for this run; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "LOCAL_RANK" in os.environ else 1


def is_first_process() -> bool:
    """Whether this is the process of a launched run that speaks to the user; True without a launcher."""
    return os.environ.get("RANK", "0") == "0" or "LOCAL_RANK" not in os.environ


def check_writable(folder: Path, needed_bytes: int) -> None:
    """Make sure that ``folder`` can be written, or made, and that its disk has room. Leaves nothing behind.

    Raises:
        MachineError: the folder is a file, is read-only, cannot be made, or its disk has less than ``needed_bytes``.
    """
    try:
        parent = _nearest_existing(folder)
        if not parent.is_dir():
            raise MachineError(
                f"Cannot write to {folder}: {parent} is a file, and a folder is needed. Choose another folder."
            )
        # Only trying tells the truth: permission bits say nothing about root, network drives and read-only mounts.
        if parent == folder.absolute():
            with tempfile.TemporaryFile(dir=parent):
                pass
        else:
            with tempfile.TemporaryDirectory(dir=parent):
                pass
        free = shutil.disk_usage(parent).free
    except OSError as error:
        reason = error.strerror or str(error)
        raise MachineError(
            f"Cannot write to {folder}: {reason.lower()}. Choose another folder, or make this one writable."
        ) from error
    if free < needed_bytes:
        raise MachineError(
            f"Too little room for {folder}: its disk has {_size(free)} free and {_size(needed_bytes)} are needed. "
            "Free some space or choose a folder on another disk."
        )


def hush_libraries() -> None:
    """No warning of what nothing here uses: for the beginning of a process, before a library is imported.

    Where bitsandbytes is installed, diffusers imports it, and it warns of kernels for 4-bit weights.
    """
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


class StopAsked(threading.Event):
    """Set by a signal that asks the process to stop; ``number`` is the signal's."""

    number = int(signal.SIGTERM)  # where another process of the same run was asked

    @property
    def status(self) -> int:
        """The exit status that shells know: ``train && generate`` does not go on with what is half done."""
        return 128 + self.number


@contextmanager
def stop_on_signals() -> Iterator[StopAsked]:
    """An event that the first SIGINT or SIGTERM sets; the second ends the process at once. Restored on the way out."""
    stop = StopAsked()

    def ask(number: int, frame: FrameType | None) -> None:
        stop.number = number
        stop.set()
        print("\nStopping: the run is saved first. Once more to end it at once.", file=sys.stderr)
        signal.signal(number, signal.SIG_DFL)

    before = {number: signal.signal(number, ask) for number in STOPPING}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _import(name: str, remedy: str) -> ModuleType:
    try:
        return import_module(name)
    except (
        Exception
    ) as error:  # a package built for another torch or GPU fails in many ways, most of them no ImportError
        if isinstance(error, ModuleNotFoundError) and error.name == name:
            raise MachineError(f"The package {name} is not installed. {remedy}") from error
        raise MachineError(
            f"The package {name} is installed but cannot be imported ({_one_line(error)}). {remedy}"
        ) from error


def _one_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _size(count: int) -> str:
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / 1024**2:.1f} MiB"


def _nearest_existing(path: Path) -> Path:
    """``path`` or the nearest folder above it that exists."""
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _cuda_devices() -> Iterator[Device]:
    import torch

    if not torch.cuda.is_available():
        return
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        try:
            free = torch.cuda.mem_get_info(index)[0]
        except RuntimeError:  # another process holds the GPU for itself, or has filled it to the last byte
            free = 0
        # Compute capability 8.0 (Ampere) is the first with bfloat16 units; on ROCm the number means something else.
        bf16 = torch.version.hip is not None or facts.major >= 8
        yield Device(f"cuda:{index}", "cuda", facts.name, facts.total_memory / GIB, free / GIB, bf16)


def _mps_devices() -> Iterator[Device]:
    import torch

    if torch.backends.mps.is_available():
        total = torch.mps.recommended_max_memory()
        free = max(0, total - torch.mps.driver_allocated_memory())
        bf16 = torch.backends.mps.is_macos_or_newer(14, 0)
        yield Device("mps", "mps", _cpu_name(""), total / GIB, free / GIB, bf16)


def _cpu_device() -> Device:
    try:
        about = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        about = ""
    ram = memory()
    flags = set(about.split())
    return Device(
        "cpu",
        "cpu",
        _cpu_name(about),
        ram.total_gib,
        ram.available_gib,
        bool(flags & {"avx512_bf16", "amx_bf16", "bf16"}),
    )


def _cpu_name(about: str) -> str:
    """Model name from the text of /proc/cpuinfo, or the nearest thing Python knows."""
    for line in about.splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _cgroup_limit(root: Path) -> tuple[int, int] | None:
    """(limit, use) in bytes of the control group mounted at ``root``, version 2 or 1; None without a limit."""
    for folder, limit_name, use_name in (
        (root, "memory.max", "memory.current"),
        (root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        try:
            limit, use = int((folder / limit_name).read_text()), int((folder / use_name).read_text())
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):  # not mounted, or the limit reads "max"
            continue
        # File cache counts as use, but the kernel drops it before it refuses memory.
        return limit, max(0, use - int(stat.get("inactive_file", 0)))
    return None


def _gpu_gap() -> list[Missing]:
    """An NVIDIA GPU that torch cannot use: the commonest reason for a run that is unexpectedly slow."""
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        torch = import_module("torch")
    except Exception:  # told by devices()
        return []
    if torch.version.cuda is None:
        return [Missing("the NVIDIA GPU", f"torch {torch.__version__} is built without CUDA", "a CUDA build of torch")]
    if not torch.cuda.is_available():
        lack = f"torch {torch.__version__} finds no GPU it can use (it needs a driver for CUDA {torch.version.cuda})"
        return [Missing("the NVIDIA GPU", lack, "a newer driver, or a torch built for the one installed")]
    return []


def home() -> Path:
    """Where caches and the studio's subjects are kept: ``DORA_HOME``, else ``~/.dora_diffusion``. Not made here."""
    return Path(os.environ.get("DORA_HOME") or Path.home() / ".dora_diffusion")
