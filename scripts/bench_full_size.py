"""Whole runs on models of full size with random weights: do they train, save and load elsewhere, in what memory?

    python scripts/bench_full_size.py --models sd1 sd2-768-v sdxl --output_dir bench-full --steps 20

Each model is made from the configuration in ``models/configs``, trained with DoRA in UNet and text encoders, and its
file is loaded into plain diffusers, whose pictures must be ours. Then the UNet alone, batch 1, rank 16, gradient
checkpointing, inputs cached: our peak, what the planner said, and the peak of PEFT's DoRA and LoRA at the same
settings. Writes ``report.json`` and ``report.md``.
"""

import argparse
import gc
import json
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from dora_diffusion.config import AdapterConfig, DataConfig, ModelConfig, RunConfig, TrainConfig
from dora_diffusion.errors import DoraError
from dora_diffusion.formats import write_bytes
from dora_diffusion.inference.draw import Drawing, draw_tensor
from dora_diffusion.inference.merged_pipeline import MergedPipeline
from dora_diffusion.machine import GIB
from dora_diffusion.models import load_base
from dora_diffusion.models.single_file import CONFIGURATIONS
from dora_diffusion.models.tokenizer import clip_tokenizer
from dora_diffusion.training import Event, train
from dora_diffusion.training.events import Planned, StepDone

PHOTOS = Path(__file__).parents[1] / "samples" / "subjects" / "teapot"
PROMPTS = ["a photo of sks teapot on the beach", "a photo of a cat"]
DRAWN = Drawing(num_inference_steps=4, guidance_scale=3.0)


@dataclass
class Run:
    """One training run. ``peak_gib``: of its steps, None where torch does not count; ``ms``: the median step."""

    loss: float
    ms: float
    peak_gib: float | None
    planned_gib: float | None


@dataclass
class Row:
    """What one model came to. ``difference``: relative, of plain diffusers' latents to ours."""

    model: str
    whole: Run
    difference: float
    changed: float
    unet_alone: Run
    peft_dora_gib: float | None
    peft_lora_gib: float | None


def main(arguments: list[str] | None = None) -> int:
    """Make, train, load, compare; print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["sd1", "sd2-768-v", "sdxl"], help="names of configurations")
    parser.add_argument("--configurations", type=Path, default=CONFIGURATIONS, help="folder of configurations")
    parser.add_argument("--output_dir", type=Path, default=Path("bench-full"))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--keep_models", action="store_true", help="keep the random weights, which take gigabytes")
    given = parser.parse_args(arguments)
    rows = []
    try:
        for name in given.models:
            rows.append(measure(name, given.configurations / name, given.output_dir / name, given.steps))
            if not given.keep_models:
                shutil.rmtree(given.output_dir / name / "model")
            write_bytes(given.output_dir / "report.json", json.dumps([asdict(row) for row in rows], indent=1).encode())
    except DoraError as error:
        print(f"bench_full_size: {error}", file=sys.stderr)
        return 2
    text = table(rows)
    write_bytes(given.output_dir / "report.md", text.encode())
    print(text)
    return 0


def measure(name: str, configuration: Path, folder: Path, steps: int) -> Row:
    """Everything about one model, in ``folder``."""
    model = make_model(configuration, folder / "model")
    whole = run(model, folder / "whole", steps, {"train_text_encoder": True})
    difference, changed = compare_pictures(model, folder / "whole")
    alone = run(model, folder / "unet", steps, {})
    return Row(name, whole, difference, changed, alone, peft_peak(model, True), peft_peak(model, False))


def device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def precision() -> torch.dtype:
    """Of the frozen base."""
    return torch.bfloat16 if device().type == "cuda" else torch.float32


def make_model(configuration: Path, folder: Path) -> Path:
    """A pipeline folder with random weights; one that is there is left as it is."""
    if (folder / "model_index.json").is_file():
        return folder
    import diffusers

    index = json.loads((configuration / "model_index.json").read_text(encoding="utf-8"))
    parts = {
        name: _make_part(entry[0], entry[1], configuration / name)
        for name, entry in index.items()
        if isinstance(entry, list) and entry[0] is not None
    }
    pads = {"tokenizer": "!" if "sd2" in configuration.name else "<|endoftext|>", "tokenizer_2": "!"}
    for name, pad in pads.items():
        if name in parts:
            parts[name] = clip_tokenizer(pad)
    kind = getattr(diffusers, index["_class_name"])
    without = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    extra = without if index["_class_name"] == "StableDiffusionPipeline" else {}
    kind(**parts, **extra).save_pretrained(folder)
    return folder


def _make_part(library: str, name: str, folder: Path) -> Any:
    """One part with the configuration in ``folder``: models with random weights, made where and as they are used."""
    import diffusers
    import transformers

    if "Tokenizer" in name:
        return None
    kind = getattr(diffusers if library == "diffusers" else transformers, name)
    if "Scheduler" in name:
        return kind.from_pretrained(folder)
    torch.manual_seed(0)
    usual = torch.get_default_dtype()
    torch.set_default_dtype(precision())
    try:
        with device():
            if library == "diffusers":
                return kind.from_config(kind.load_config(folder))
            return kind(transformers.CLIPTextConfig.from_pretrained(folder))
    finally:
        torch.set_default_dtype(usual)


def run(model: Path, folder: Path, steps: int, adapter: dict[str, Any]) -> Run:
    """Train with our trainer: batch 1, rank 16, gradient checkpointing, everything that can be cached cached."""
    on_gpu = device().type == "cuda"
    config = TrainConfig(
        model=ModelConfig(pretrained_model_name_or_path=str(model)),
        data=DataConfig(instance_data_dir=PHOTOS, class_noun="teapot", center_crop=True),
        adapter=AdapterConfig(rank=16, **adapter),
        run=RunConfig(
            output_dir=folder,
            max_train_steps=steps,
            gradient_checkpointing=True,
            mixed_precision="bf16" if on_gpu else "no",
            checkpointing_steps=0,
            overwrite=True,
        ),
    )
    seen: list[Event] = []
    result = train(config, seen.append)
    peak = torch.cuda.max_memory_allocated() / GIB if on_gpu else None
    ms = statistics.median(event.step_ms for event in seen if isinstance(event, StepDone))
    planned = next((event.peak_gib for event in seen if isinstance(event, Planned)), None)
    _forget()
    return Run(result.loss, ms, peak, planned)


def compare_pictures(model: Path, adapter: Path) -> tuple[float, float]:
    """How far plain diffusers' pictures are from ours, and ours from the base's; both relative.

    In float32: in half precision weights merged and weights beside each other round differently.
    """
    from diffusers import DiffusionPipeline

    pipe: Any = DiffusionPipeline.from_pretrained(str(model), dtype=torch.float32).to(device())
    pipe.set_progress_bar_config(disable=True)
    pipe.load_lora_weights(str(adapter))
    base = load_base(str(model))
    base.pipe = pipe  # our way to draw, their weights
    theirs = draw_tensor(base, PROMPTS, [0, 1], DRAWN).cpu()
    del pipe, base
    _forget()
    ours = MergedPipeline(str(model), precision="fp32")
    plain = draw_tensor(ours.base, PROMPTS, [0, 1], DRAWN).cpu()
    ours.switch(adapter)
    merged = draw_tensor(ours.base, PROMPTS, [0, 1], DRAWN).cpu()
    del ours
    _forget()
    scale = merged.std()
    return float((theirs - merged).abs().mean() / scale), float((plain - merged).abs().mean() / scale)


def peft_peak(model: Path, use_dora: bool) -> float | None:
    """Peak GiB of a step as diffusers' scripts make it, inputs cached, adapters in float32; None without a GPU."""
    if device().type != "cuda":
        return None
    from diffusers import UNet2DConditionModel
    from peft import LoraConfig

    unet: Any = UNet2DConditionModel.from_pretrained(model, subfolder="unet", dtype=precision()).to(device())
    unet.requires_grad_(False)
    unet.enable_gradient_checkpointing()
    targets = ["to_q", "to_k", "to_v", "to_out.0"]
    unet.add_adapter(LoraConfig(r=16, lora_alpha=16, use_dora=use_dora, target_modules=targets))
    unet.train()
    trained = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.data = parameter.data.float()
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
    step = _peft_step(unet, optimizer)
    step()
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() / GIB
    del unet, trained, optimizer, step
    _forget()
    return float(peak)


def _peft_step(unet: Any, optimizer: torch.optim.Optimizer) -> Callable[[], None]:
    config, side = unet.config, unet.config.sample_size

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device=device(), dtype=precision())

    arguments: dict[str, Any] = {"encoder_hidden_states": normal(1, 77, config.cross_attention_dim)}
    if config.addition_embed_type == "text_time":
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        arguments["added_cond_kwargs"] = {"text_embeds": normal(1, pooled), "time_ids": normal(1, 6)}
    latents, target = normal(1, config.in_channels, side, side), normal(1, config.in_channels, side, side)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.bfloat16):
            model_pred = unet(latents, torch.tensor([500], device=device()), **arguments, return_dict=False)[0]
        torch.nn.functional.mse_loss(model_pred.float(), target.float()).backward()
        optimizer.step()

    return step


def _forget() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def table(rows: list[Row]) -> str:
    """The report as tables."""
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    lines = [f"{time.strftime('%Y-%m-%d')}, {where}, torch {torch.__version__}.", ""]
    lines += [
        "| model | with text encoders: ms a step | peak GiB | diffusers' pictures from ours | ours from the base's |"
    ]
    lines += ["|---|---|---|---|---|"]
    for row in rows:
        peak = _gib(row.whole.peak_gib)
        lines.append(f"| {row.model} | {row.whole.ms:.0f} | {peak} | {row.difference:.1e} | {row.changed:.1e} |")
    lines += [
        "",
        "| model, UNet alone | ms a step | peak GiB | planned | PEFT DoRA | PEFT LoRA |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        figures = (row.unet_alone.peak_gib, row.unet_alone.planned_gib, row.peft_dora_gib, row.peft_lora_gib)
        lines.append(f"| {row.model} | {row.unet_alone.ms:.0f} | {' | '.join(_gib(figure) for figure in figures)} |")
    return "\n".join(lines) + "\n"


def _gib(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    sys.exit(main())
