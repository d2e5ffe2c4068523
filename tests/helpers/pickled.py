"""A model as it was written before safetensors."""

from pathlib import Path

import torch
from safetensors.torch import load_file


def as_pickles(folder: Path) -> Path:
    """Turn the safetensors files of every part, which may be several, into one ``.bin``."""
    for part in {path.parent for path in folder.rglob("*.safetensors")}:
        tensors = {}
        for path in part.glob("*.safetensors"):
            tensors |= load_file(path)
            path.unlink()
        for index in part.glob("*.safetensors.index.json"):
            index.unlink()
        name = "pytorch_model.bin" if part.name == "text_encoder" else "diffusion_pytorch_model.bin"
        torch.save(tensors, part / name)
    return folder
