"""Export an SDXL adapter of full size to every format, proof included: how long, in what memory?

    python scripts/bench_export.py --output_dir bench-export --threads 2

Makes SDXL's base as a folder with random fp16 weights (7 GB; left there) and a DoRA of rank 16 on the attention of the
UNet and of both text encoders. Every export is a process of its own, so that its peak (resident, mapped files counted)
is its own. Prints a Markdown table; the exit status is 1 if an export failed.
"""

import argparse
import math
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dora_diffusion.adapters import AdapterState, LayerState
from dora_diffusion.formats.base_files import Tensors, open_base
from dora_diffusion.formats.diffusers_format import DIFFUSERS
from dora_diffusion.formats.streamed import stream_safetensors
from dora_diffusion.machine import GIB
from dora_diffusion.models.sdxl import SDXL
from dora_diffusion.models.single_file import CONFIGURATIONS
from dora_diffusion.registry import FORMATS

RANK = 16
EXPORT = """
import sys
from dora_diffusion.cli import main
from dora_diffusion.machine import peak_memory
status = main(sys.argv[1:])
print(peak_memory())
sys.exit(status)
"""


def make_base(folder: Path) -> None:
    """SDXL's folder; tokenizers and schedule are not read here and left out."""
    import diffusers
    import transformers

    source = CONFIGURATIONS / "sdxl"
    shutil.copytree(source, folder, dirs_exist_ok=True)
    kinds: dict[str, Any] = {
        "unet": diffusers.UNet2DConditionModel,
        "vae": diffusers.AutoencoderKL,
        "text_encoder": transformers.CLIPTextModel,
        "text_encoder_2": transformers.CLIPTextModelWithProjection,
    }
    draw = torch.Generator().manual_seed(0)
    for component, kind in kinds.items():
        with torch.device("meta"):
            if component.startswith("text"):
                model = kind(transformers.CLIPTextConfig.from_pretrained(source / component))
            else:
                model = kind.from_config(kind.load_config(source / component))
        shapes = {_stored(component, name): value.shape for name, value in model.state_dict().items()}
        tensors = Tensors({name: _random(shape, draw) for name, shape in shapes.items()})
        stem = "model" if component.startswith("text") else "diffusion_pytorch_model"
        stream_safetensors(folder / component / f"{stem}.safetensors", tensors, tensors, {})


def _stored(component: str, name: str) -> str:
    """transformers 5 leaves "text_model." out of the names in memory, and not out of those in files."""
    inside = component.startswith("text") and not name.startswith(("text_model.", "text_projection"))
    return f"text_model.{name}" if inside else name


def _random(shape: torch.Size, draw: torch.Generator) -> Any:
    fan_in = max(1, shape.numel() // shape[0]) if shape else 1
    return lambda: (torch.randn(shape, generator=draw) * fan_in**-0.5).half()


def make_adapter(folder: Path, file: Path) -> int:
    """A DoRA that looks trained; how many layers it has."""
    base, layers = open_base(str(folder)), {}
    draw = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw)

    for name in base.weights:
        component = name.partition(".")[0]
        if re.search(str(SDXL.preset(component, "attn")), name):
            weight = base.weights[name].float()
            rows, columns = weight.shape
            A, B = normal(RANK, columns) * columns**-0.5, normal(rows, RANK) * 0.01
            magnitude = (weight + B @ A).norm(dim=1) * (1 + 0.01 * normal(rows))
            layers[name] = LayerState(A, B, 1.0, magnitude, (rows, columns))
    DIFFUSERS.write(AdapterState("dora", layers, str(folder), {}, {"trigger": "sks"}), file)
    return len(layers)


def measure(format_name: str, adapter: Path, output: Path, threads: int) -> tuple[float, float, str]:
    """(seconds, peak GiB, what went wrong or nothing) of one export."""
    target = output / f"{format_name}{FORMATS.load(format_name).suffix}"
    command = ["export", "--adapter", str(adapter), "--format", format_name, "--output", str(target)]
    began = time.perf_counter()
    ended = subprocess.run(
        [sys.executable, "-c", EXPORT, *command],
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - began
    shutil.rmtree(target, ignore_errors=True)
    target.unlink(missing_ok=True)
    if ended.returncode:
        return seconds, math.nan, ended.stderr[-400:]
    return seconds, int(ended.stdout.splitlines()[-1]) / GIB, ""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--output_dir", type=Path, default=Path("bench-export"))
    parser.add_argument("--formats", nargs="+", choices=list(FORMATS), default=list(FORMATS))
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args(argv)
    base, adapter = args.output_dir / "sdxl", args.output_dir / "adapter.safetensors"
    if not adapter.is_file():
        make_base(base)
        print(f"{make_adapter(base, adapter)} layers", file=sys.stderr)
    print("| format | seconds, proof included | peak GiB |\n|---|---|---|", flush=True)
    failed = False
    for name in args.formats:
        seconds, peak, fault = measure(name, adapter, args.output_dir, args.threads)
        print(f"| `{name}` | {seconds:.0f} | {peak:.1f} |{f' failed: {fault}' if fault else ''}", flush=True)
        failed = failed or bool(fault)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
