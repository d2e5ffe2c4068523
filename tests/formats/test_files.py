"""Files on disk: whole or not there, the same bytes for the same content, read without trust."""

import errno
import hashlib
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dora_diffusion.errors import FormatError, MachineError
from dora_diffusion.formats import read_safetensors, write_bytes, write_safetensors
from dora_diffusion.formats.files import PICKLES, check_finite, safetensors_bytes

CONTENT = """
import torch
from dora_diffusion.formats.files import safetensors_bytes
names = {f"layer{k}" for k in range(40)}  # a set of strings: its order changes with the hash seed
tensors = {name: torch.full((3, 2), float(name[5:])) for name in names}
content = safetensors_bytes(tensors, {name: f"{name} \\u00e4" for name in names})
"""


def listed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_same_content_is_the_same_bytes_in_every_process() -> None:
    code = f"{CONTENT}\nimport hashlib; print(hashlib.sha256(content).hexdigest(), list(names)[0])"
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2")
    ]
    said = [child.communicate()[0].split() for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert said[0][1] != said[1][1], "the seeds must bring the names into different orders"
    space: dict[str, bytes] = {}
    exec(CONTENT, space)
    assert said[0][0] == said[1][0] == hashlib.sha256(space["content"]).hexdigest()


def test_the_same_content_is_the_same_bytes_every_time() -> None:
    tensors = {"b": torch.ones(2), "a": torch.zeros(3, dtype=torch.bfloat16)}
    metadata = {str(k): "x" for k in range(50)}
    first = safetensors_bytes(tensors, metadata)
    for _ in range(5):
        assert safetensors_bytes(dict(reversed(tensors.items())), dict(reversed(metadata.items()))) == first


def test_what_is_written_is_what_is_read_by_everybody(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.safetensors"
    strided = torch.arange(12.0).view(3, 4).t()
    tensors = {
        "x": strided,
        "half": torch.ones(5, dtype=torch.float16),
        "scalar": torch.tensor(3.5),
        "none": torch.zeros(0),
    }
    write_safetensors(path, tensors, {"clé": "wört", "b": "2"})
    ours, metadata = read_safetensors(path)
    theirs = load_file(path)
    assert metadata == {"clé": "wört", "b": "2", "format": "pt"}
    assert ours.keys() == theirs.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (
            torch.equal(ours[name], tensor) and torch.equal(theirs[name], tensor) and ours[name].dtype == tensor.dtype
        )
    (length,) = struct.unpack("<Q", path.read_bytes()[:8])
    assert length % 8 == 0, "tensors start on eight bytes, as readers that map the file expect"
    assert list(json.loads(path.read_bytes()[8 : 8 + length])["__metadata__"]) == ["b", "clé", "format"]
    assert listed(path.parent) == ["a.safetensors"]


@pytest.mark.parametrize("broken", ["os.fsync", "pathlib.Path.replace", "pathlib.Path.open"])
def test_a_failed_write_keeps_the_old_file(broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.bin"
    write_bytes(path, b"old")

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(broken, fail)
        with pytest.raises(MachineError, match=r"a\.bin cannot be written: No space left on device\. Free some space"):
            write_bytes(path, b"new content")
    assert path.read_bytes() == b"old" and listed(tmp_path) == ["a.bin"]
    write_bytes(path, b"new content")
    assert path.read_bytes() == b"new content" and listed(tmp_path) == ["a.bin"]


def test_a_write_that_is_interrupted_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.bin"
    write_bytes(path, b"old")

    def interrupt(handle: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old" and listed(tmp_path) == ["a.bin"]


def test_the_disk_has_the_bytes_before_the_name_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.bin"
    seen: list[tuple[bool, int]] = []
    monkeypatch.setattr("os.fsync", lambda handle: seen.append((path.exists(), os.fstat(handle).st_size)))
    write_bytes(path, b"content")
    assert seen == [(False, 7)]


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "a", Path("/proc/no/such/place"), tmp_path / "folder"):
        with pytest.raises(MachineError, match="cannot be written: "):
            write_bytes(path, b"x")
    assert listed(tmp_path) == ["file", "folder"] and listed(tmp_path / "folder") == []


@pytest.mark.parametrize("suffix", [*PICKLES, ".PT"])
def test_a_pickle_is_refused_unread(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    torch.save({"x": torch.ones(2)}, path)
    with pytest.raises(FormatError, match="is a pickle .* only .safetensors files are read"):
        read_safetensors(path)


def test_a_pickle_under_another_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    torch.save({"x": torch.ones(2)}, path)
    with pytest.raises(FormatError, match="is no whole safetensors file"):
        read_safetensors(path)


@pytest.mark.parametrize("keep", [0, 4, 8, 40, -1])
def test_a_cut_file_is_refused(keep: int, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"x": torch.ones(20)}, path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(FormatError, match="is no whole safetensors file") as caught:
        read_safetensors(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "a.safetensors", tmp_path):
        with pytest.raises(FormatError, match="There is no file"):
            read_safetensors(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_found(value: float, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    good = {"a": torch.ones(3), "whole": torch.ones(3, dtype=torch.int64), "empty": torch.zeros(0)}
    check_finite(path, good)
    bad = torch.ones(2, 3)
    bad[1, 2] = value
    with pytest.raises(FormatError, match="not finite, first in layer.b"):
        check_finite(path, {**good, "layer.b": bad})
