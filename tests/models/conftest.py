"""Folders of one tiny model in the layouts that people have."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import tiny_pipeline


@pytest.fixture(scope="session")
def tiny() -> Any:
    """The pipeline itself; tests do not change it."""
    return tiny_pipeline()


@pytest.fixture(scope="session")
def tiny_folder(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As plain diffusers saves it."""
    folder = tmp_path_factory.mktemp("tiny") / "plain"
    tiny.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def sharded_folder(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The UNet in many files with an index."""
    folder = tmp_path_factory.mktemp("tiny") / "sharded"
    tiny.save_pretrained(folder)
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    tiny.unet.save_pretrained(folder / "unet", max_shard_size="60KB")
    return folder


@pytest.fixture(scope="session")
def fp16_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Only files of the variant fp16."""
    folder = tmp_path_factory.mktemp("tiny") / "fp16"
    tiny_pipeline().to(dtype=torch.float16).save_pretrained(folder, variant="fp16")
    return folder
