"""Hub names that are not here yet: downloaded over HTTP from a hub of our own, by processes as users start them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_server import HubServer, hub_of
from small_models import small_pipeline, weights_of

LOAD = """
import json, sys, torch
from dora_diffusion.errors import DoraError
from dora_diffusion.models import load_base
try:
    base = load_base("owner/model")
except DoraError as error:
    sys.exit(str(error))
tensors = {f"{part}.{name}": tensor for part in ("unet", "vae", "text_encoder")
           for name, tensor in getattr(base.pipe, part).state_dict().items()}
torch.save(tensors, sys.argv[1])
print(json.dumps([base.name, base.family.name]))
"""
ADD = """
import json, sys
from pathlib import Path
from dora_diffusion.errors import StudioError
from dora_diffusion.studio.studio import Studio
studio = Studio(Path(sys.argv[1]))
refused = ""
try:
    studio.bases.add("owner/model")
except StudioError as error:
    refused = str(error)
base = studio.bases.add("owner/model", download=True)
try:
    studio.bases.add("owner/misspelt", download=True)
except StudioError as error:
    misspelt = str(error)
studio.close()
print(json.dumps({"refused": refused, "misspelt": misspelt, "name": base.name, "place": base.place, "size": base.size}))
"""
Run = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path, repository: Path) -> Run:
    """Runs code in a process of its own, with an empty cache, against a hub."""

    def start(hub: HubServer, code: str, argument: Path, offline: bool = False) -> Any:
        own = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": str(int(offline))}
        environment = {**os.environ, **own, "NO_PROXY": "127.0.0.1", "PYTHONPATH": str(repository)}
        command = [sys.executable, "-c", code, str(argument)]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        return json.loads(ended.stdout) if ended.returncode == 0 else ended.stderr

    return start


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    """With the plain weights, those of fp16, pickles and words."""
    folder = tmp_path / "repository"
    small_pipeline("sd1").save_pretrained(folder)
    small_pipeline("sd1").to(dtype=torch.float16).save_pretrained(folder, variant="fp16")
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"a pickle")
    (folder / "README.md").write_text("words")
    with hub_of("owner/model", folder) as server:
        yield server


def keep_only_fp16(folder: Path) -> None:
    for file in folder.rglob("*.safetensors"):
        if ".fp16." not in file.name:
            file.unlink()


def loaded_equals(file: Path, dtype: torch.dtype = torch.float32) -> bool:
    expected = weights_of(small_pipeline("sd1").to(dtype=dtype))
    found = torch.load(file, weights_only=True)
    return all(torch.equal(found[name], tensor.float()) for name, tensor in expected.items())


def test_a_name_is_downloaded_once(hub: HubServer, run: Run, tmp_path: Path) -> None:
    assert run(hub, LOAD, tmp_path / "weights") == ["owner/model", "sd1"]
    assert loaded_equals(tmp_path / "weights")
    assert not [file for file in hub.sent if file.endswith((".bin", ".md")) or ".fp16." in file], "what is not read"
    hub.sent.clear()
    assert run(hub, LOAD, tmp_path / "again") == ["owner/model", "sd1"]
    assert hub.sent == [] and loaded_equals(tmp_path / "again")
    hub.asked.clear()
    assert run(hub, LOAD, tmp_path / "offline", offline=True) == ["owner/model", "sd1"]
    assert hub.asked == [] and loaded_equals(tmp_path / "offline")


def test_a_repository_of_fp16_weights_alone(hub: HubServer, run: Run, tmp_path: Path) -> None:
    keep_only_fp16(hub.folder)
    assert run(hub, LOAD, tmp_path / "weights") == ["owner/model", "sd1"]
    assert loaded_equals(tmp_path / "weights", torch.float16)
    assert run(hub, LOAD, tmp_path / "offline", offline=True) == ["owner/model", "sd1"]
    assert loaded_equals(tmp_path / "offline", torch.float16)


def test_pickles_are_refused_before_they_are_downloaded(hub: HubServer, run: Run, tmp_path: Path) -> None:
    for file in hub.folder.rglob("*.safetensors"):
        file.unlink()
    assert "only has .bin weights. They are pickles" in run(hub, LOAD, tmp_path / "weights")
    assert not [file for file in hub.sent if file.endswith(".bin")]


def test_the_studio_downloads_what_it_is_allowed_to(hub: HubServer, run: Run, tmp_path: Path) -> None:
    keep_only_fp16(hub.folder)
    weights = "unet/diffusion_pytorch_model.fp16.safetensors"
    hub.breaks.add(weights)
    said = run(hub, ADD, tmp_path / "home", offline=True)
    assert (said["name"], said["place"], said["size"]) == ("owner/model", "hub", 64)
    assert "is not on this machine" in said["refused"] and "The hub has no model owner/misspelt" in said["misspelt"]
    assert hub.sent.count(weights) == 2, "the half that came is not taken for the whole"
    assert not [file for file in hub.sent if file.endswith((".bin", ".md"))]
    hub.asked.clear()
    assert run(hub, LOAD, tmp_path / "weights", offline=True) == ["owner/model", "sd1"]
    assert hub.asked == [] and loaded_equals(tmp_path / "weights", torch.float16)
