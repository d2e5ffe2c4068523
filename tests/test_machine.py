"""What the machine has is told as it is, and what it lacks is an error that says what to install."""

import errno
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import psutil
import pytest
import torch

from dora_diffusion import machine
from dora_diffusion.errors import MachineError


@pytest.mark.parametrize("begin", ["cli._set_up_process()", "studio.trainer.main(['gone/config.yaml'])"])
def test_a_process_begins_without_warnings_of_what_nothing_uses(begin: str, tmp_path: Path) -> None:
    module = begin.split("(")[0].rpartition(".")[0]
    warn = "import logging; logging.getLogger('bitsandbytes.backends.cpu.ops').warning('Failed to load CPU kernels')"
    code = f"import dora_diffusion.{module}; dora_diffusion.{begin}; {warn}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Failed to load" not in done.stderr


def test_importing_machine_imports_nothing_heavy() -> None:
    code = "import sys, dora_diffusion.machine; print(sorted({'torch', 'numpy', 'PIL', 'psutil'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_versions_are_those_of_the_package_metadata() -> None:
    versions = machine.versions()
    assert versions["python"] == ".".join(map(str, sys.version_info[:3]))
    assert versions["torch"] == metadata.version("torch")
    assert {"diffusers", "transformers", "accelerate", "peft", "safetensors", "gradio", "xformers"} < set(versions)


def test_a_package_that_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_PACKAGES", ("no-such-distribution-anywhere",))
    assert machine.versions()["no-such-distribution-anywhere"] is None


def test_the_cpu_is_the_last_device_and_torch_accepts_every_place() -> None:
    devices = machine.devices()
    assert devices[-1].kind == "cpu"
    for device in devices:
        assert torch.zeros(1, device=device.place).device.type == device.kind
        assert device.name
        assert 0 <= device.free_gib <= device.total_gib


def _pretend_gpu(monkeypatch: pytest.MonkeyPatch, major: int, free: Any) -> None:
    facts = SimpleNamespace(name="Test GPU", total_memory=24 * machine.GIB, major=major)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: facts)
    monkeypatch.setattr(torch.cuda, "mem_get_info", free)


@pytest.mark.parametrize(("major", "bf16"), [(7, False), (8, True), (9, True)])
def test_a_gpu_is_told_with_its_memory_and_precision(monkeypatch: pytest.MonkeyPatch, major: int, bf16: bool) -> None:
    _pretend_gpu(monkeypatch, major, lambda index: (6 * machine.GIB, 24 * machine.GIB))
    assert machine.devices()[0] == machine.Device("cuda:0", "cuda", "Test GPU", 24.0, 6.0, bf16)


def test_a_gpu_that_will_not_tell_its_memory_has_none_free(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(index: int) -> tuple[int, int]:
        raise RuntimeError("CUDA-capable device(s) is/are busy or unavailable")

    _pretend_gpu(monkeypatch, 9, refuse)
    assert machine.devices()[0].free_gib == 0.0


def test_memory_is_the_machines() -> None:
    memory = machine.memory()
    assert 0 < memory.available_gib <= memory.total_gib <= psutil.virtual_memory().total / machine.GIB


@pytest.mark.parametrize(
    ("folder", "limit", "use"),
    [(".", "memory.max", "memory.current"), ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes")],
    ids=["version 2", "version 1"],
)
def test_the_limit_of_a_container_is_read_without_its_file_cache(
    tmp_path: Path, folder: str, limit: str, use: str
) -> None:
    group = tmp_path / folder
    group.mkdir(exist_ok=True)
    (group / limit).write_text("4000\n")
    (group / use).write_text("3000\n")
    (group / "memory.stat").write_text("anon 1800\ninactive_file 1200\n")
    assert machine._cgroup_limit(tmp_path) == (4000, 1800)


@pytest.mark.parametrize("limit", ["max\n", None])
def test_no_container_limit_is_no_limit(tmp_path: Path, limit: str | None) -> None:
    if limit:
        (tmp_path / "memory.max").write_text(limit)
        (tmp_path / "memory.current").write_text("3000\n")
        (tmp_path / "memory.stat").write_text("inactive_file 0\n")
    assert machine._cgroup_limit(tmp_path) is None


def test_a_container_limit_lowers_what_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_cgroup_limit", lambda root: (machine.GIB // 2, machine.GIB // 4))
    assert machine.memory() == machine.Memory(0.5, 0.25)


def test_the_disk_of_a_folder_not_made_yet_has_room(tmp_path: Path) -> None:
    assert machine.free_disk_gib(tmp_path / "a" / "b") == pytest.approx(machine.free_disk_gib(tmp_path), rel=0.05)
    assert machine.free_disk_gib(tmp_path) > 0


def test_missing_features_name_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "find_spec", lambda name: None if name in ("gradio", "pillow_heif") else object())
    monkeypatch.setattr(machine, "_gpu_gap", lambda: [])
    assert machine.missing_for() == [
        machine.Missing("the web studio", "gradio is not installed", "pip install 'dora-diffusion[ui]'", True),
        machine.Missing("HEIC photos", "pillow_heif is not installed", "pip install 'pillow-heif'", True),
    ]


def test_every_extra_that_is_told_exists() -> None:
    told = {install[install.index("[") + 1 : -1] for _, _, install in machine._FEATURES if "[" in install}
    assert told <= set(metadata.metadata("dora-diffusion").get_all("Provides-Extra") or [])


@pytest.mark.parametrize(
    ("cuda", "available", "expected"),
    [(None, False, "built without CUDA"), ("12.8", False, "needs a driver for CUDA 12.8"), ("12.8", True, None)],
)
def test_a_gpu_that_torch_cannot_use_is_told(
    monkeypatch: pytest.MonkeyPatch, cuda: str | None, available: bool, expected: str | None
) -> None:
    monkeypatch.setattr(machine.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    gaps = [gap.missing for gap in machine.missing_for() if gap.feature == "the NVIDIA GPU"]
    assert (not gaps) if expected is None else expected in gaps[0]


def test_a_package_that_is_there_is_returned() -> None:
    assert machine.require_package("json", "ui", "The studio") is sys.modules["json"]


def test_a_missing_package_is_told_with_its_extra() -> None:
    with pytest.raises(MachineError) as told:
        machine.require_package("no_such_package_anywhere", "ui", "The studio")
    assert str(told.value) == (
        "The package no_such_package_anywhere is not installed. The studio needs it: pip install 'dora-diffusion[ui]'."
    )


@pytest.mark.parametrize("fault", ["import no_such_part", "raise OSError('libcudart.so.11: cannot open\\nmore')"])
def test_a_broken_package_is_not_called_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    (tmp_path / "half_a_package.py").write_text(fault)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MachineError, match="is installed but cannot be imported") as told:
        machine.require_package("half_a_package", "xformers", "Attention by xformers")
    assert "dora-diffusion[xformers]" in str(told.value)
    assert "\n" not in str(told.value)


def test_torch_that_cannot_be_imported_is_a_machine_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> ModuleType:
        raise OSError("libtorch.so: undefined symbol")

    monkeypatch.setattr(machine, "import_module", refuse)
    with pytest.raises(MachineError, match="torch.*undefined symbol"):
        machine.devices()


def test_a_folder_to_be_made_is_writable_and_nothing_is_left(tmp_path: Path) -> None:
    machine.check_writable(tmp_path / "new" / "deeper", 1024)
    machine.check_writable(tmp_path, 1024)
    assert list(tmp_path.iterdir()) == []


def test_a_relative_folder_is_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    machine.check_writable(Path("run"), 0)
    machine.check_writable(Path(), 0)


@pytest.mark.parametrize("below", [(), ("run",)])
def test_a_file_in_the_way_is_told(tmp_path: Path, below: tuple[str, ...]) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(MachineError, match="file is a file, and a folder is needed"):
        machine.check_writable(file.joinpath(*below), 0)


@pytest.mark.parametrize(("maker", "folder"), [("TemporaryFile", "."), ("TemporaryDirectory", "new")])
def test_a_read_only_disk_is_found_by_trying(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, maker: str, folder: str
) -> None:
    def refuse(dir: Path) -> None:  # noqa: A002
        raise OSError(errno.EROFS, "Read-only file system", str(dir))

    monkeypatch.setattr(tempfile, maker, refuse)
    with pytest.raises(MachineError, match="Cannot write to .*: read-only file system. Choose another folder"):
        machine.check_writable(tmp_path / folder, 0)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc here")
def test_a_file_system_that_refuses_even_root_is_told() -> None:
    with pytest.raises(MachineError, match="Cannot write to /proc/dora-run"):
        machine.check_writable(Path("/proc/dora-run"), 0)


def test_a_name_that_is_too_long_is_told(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="too long"):
        machine.check_writable(tmp_path / ("x" * 5000), 0)


def test_too_little_room_is_told_in_gib(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"has [\d.]+ [GM]iB free and 1048576\.0 GiB are needed"):
        machine.check_writable(tmp_path / "run", 1024**5)


def test_a_launched_process_knows_how_many_and_which(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOCAL_RANK", "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert machine.launched_processes() == 1 and machine.is_first_process()
    for name, value in (("RANK", "3"), ("WORLD_SIZE", "8")):  # left over from a job queue: nobody launched this
        monkeypatch.setenv(name, value)
    assert machine.launched_processes() == 1 and machine.is_first_process()
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert machine.launched_processes() == 8 and not machine.is_first_process()
    monkeypatch.setenv("RANK", "0")
    assert machine.is_first_process()


def test_peak_memory_is_this_process_own_and_not_that_of_who_started_it() -> None:
    held = b"\1" * (300 * 2**20)
    ask = "from dora_diffusion.machine import peak_memory; print(peak_memory())"
    told = int(subprocess.run([sys.executable, "-c", ask], check=True, capture_output=True, text=True).stdout)
    assert 2**20 < told < len(held) <= machine.peak_memory()
