"""Time one adapter training step: ours, PEFT's, and the floor below both.

    PYTHONPATH=. python scripts/bench_step.py --model toybox --batch_sizes 4 --threads 2 --steps 40 --json step.json

Every variant gets the same weights, batch and loss. On a CPU the variants take turns, one step each, so that whatever
else the machine does hits all of them alike. On a GPU each variant runs alone, because its peak memory is wanted too,
and the whole line of variants is run forth and back. docs/benchmarks.md has the results.
"""

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dora_diffusion import machine
from dora_diffusion.adapters import inject
from dora_diffusion.config import AdapterConfig, OptimConfig
from dora_diffusion.errors import DoraError
from dora_diffusion.models import load_base
from dora_diffusion.models.sd1 import SD1
from dora_diffusion.models.single_file import CONFIGURATIONS
from dora_diffusion.training.hardware import keep_freed_memory
from dora_diffusion.training.loss import dreambooth_loss, element_errors, sample_errors, training_target
from dora_diffusion.training.optimizers.adamw import ADAMW

TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
WARM_UP = 3
# UNets by their layout, or the file of it: the full-size ones' are those that single files are read with.
UNETS: dict[str, dict[str, Any] | Path] = {
    "sd15": CONFIGURATIONS / "sd1" / "unet" / "config.json",
    "sdxl": CONFIGURATIONS / "sdxl" / "unet" / "config.json",
    "tiny": {
        "sample_size": 8,
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "cross_attention_dim": 16,
        "attention_head_dim": 4,
        "norm_num_groups": 4,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    },
}

# (what, above, below)
COMPARED = (
    ("ms", "ours_dora", "ours_lora"),
    ("ms", "ours_dora", "peft_dora"),
    ("ms", "ours_lora", "peft_lora"),
    ("ms", "peft_dora", "peft_lora"),
    ("peak_gib", "ours_dora", "peft_lora"),
    ("peak_gib", "ours_lora", "peft_lora"),
)

Step = Callable[[], Tensor]  # one whole training step; its loss, detached


class BareBase:
    """What ``adapters.inject`` asks of a base model, for a UNet alone; names and presets are those of SD 1.x."""

    word = None

    def __init__(self, unet: Any):
        self._unet = unet

    def adaptable(self) -> dict[str, torch.nn.Module]:
        return {"unet": self._unet}

    def is_used(self, component: str, path: str) -> bool:
        return True

    def layer_name(self, component: str, path: str) -> str:
        return SD1.layer_name(component, path)

    def preset(self, component: str, name: str) -> str | None:
        return SD1.preset(component, name)


@dataclass(frozen=True)
class Setting:
    """Everything but the variant. ``steps`` are the timed ones."""

    model: str
    batch_size: int
    rank: int
    steps: int
    device: torch.device
    full: bool = False  # float32 on a GPU too

    @property
    def dtype(self) -> torch.dtype:
        """The frozen base's precision."""
        return torch.bfloat16 if self.device.type == "cuda" and not self.full else torch.float32


@dataclass(frozen=True)
class Task:
    """A frozen UNet and one batch for it: float32, on the device; the second half of the batch is class images."""

    unet: Any
    scheduler: Any
    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    is_prior: Tensor
    conditioning: dict[str, Any]

    def predict(self) -> Tensor:
        """The UNet's output for the noisy latents, in its own precision."""
        noisy_latents = self.scheduler.add_noise(self.latents, self.noise, self.timesteps).to(self.unet.dtype)
        conditioning = _cast(self.conditioning, self.unet.dtype)
        predicted: Tensor = self.unet(noisy_latents, self.timesteps, **conditioning, return_dict=False)[0]
        return predicted

    def loss(self) -> Tensor:
        """As ``training.loss.denoising_loss``, with SDXL's nested conditioning besides."""
        target = training_target(self.scheduler, self.latents.detach(), self.noise, self.timesteps)
        return dreambooth_loss(sample_errors(element_errors(self.predict(), target)), self.is_prior, 1.0)[0]


@dataclass
class Result:
    """What one variant came to: ``ms`` one entry a timed step, ``peak_gib`` None where torch does not count memory."""

    variant: str
    trainable: int
    first_loss: float
    ms: list[float] = field(default_factory=list)
    peak_gib: float | None = None

    def row(self) -> dict[str, Any]:
        """The JSON row: the times as median, extremes and count."""
        times = {"ms": statistics.median(self.ms), "fastest_ms": min(self.ms), "slowest_ms": max(self.ms)}
        return {**asdict(self), **times, "timed_steps": len(self.ms)}


def make_task(setting: Setting) -> Task:
    """Build the model afresh, with the same weights every time, and draw the batch.

    Raises:
        ModelError: toybox's weights are not installed.
    """
    unet, scheduler, tokens = _load(setting)
    unet.requires_grad_(False)
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.to(setting.device)
    config, b, size = unet.config, setting.batch_size, unet.config.sample_size
    draw = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw).to(setting.device)

    conditioning: dict[str, Any] = {"encoder_hidden_states": normal(b, tokens, config.cross_attention_dim)}
    if config.addition_embed_type == "text_time":
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        side = 8.0 * size  # original size, crop and target size of an uncropped picture
        time_ids = torch.tensor([[side, side, 0, 0, side, side]] * b, device=setting.device)
        conditioning["added_cond_kwargs"] = {"text_embeds": normal(b, pooled), "time_ids": time_ids}
    latents, noise = normal(b, config.in_channels, size, size), normal(b, config.in_channels, size, size)
    timesteps = torch.randint(0, 1000, (b,), generator=draw).to(setting.device)
    is_prior = torch.arange(b, device=setting.device) >= b - b // 2
    return Task(unet, scheduler, latents, noise, timesteps, is_prior, conditioning)


def _load(setting: Setting) -> tuple[Any, Any, int]:
    """UNet, noise schedule and length of a prompt in tokens."""
    from diffusers import DDPMScheduler, UNet2DConditionModel

    if setting.model == "toybox":
        base = load_base("toybox", dtype=setting.dtype)
        scheduler = DDPMScheduler.from_config(base.pipe.scheduler.config)
        return base.unet.to(setting.device), scheduler, base.pipe.tokenizer.model_max_length
    layout = UNETS[setting.model]
    if isinstance(layout, Path):
        layout = json.loads(layout.read_text(encoding="utf-8"))
    torch.manual_seed(0)
    usual = torch.get_default_dtype()
    # Made where and, unless it is to be the same in full, as it is used: in float32 on the CPU it would take minutes.
    torch.set_default_dtype(torch.bfloat16 if setting.device.type == "cuda" else torch.float32)
    try:
        with setting.device:
            unet: Any = UNet2DConditionModel.from_config(layout).to(setting.dtype)
    finally:
        torch.set_default_dtype(usual)
    return unet, DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012), 77


def _cast(value: Any, dtype: torch.dtype) -> Any:
    return {name: _cast(part, dtype) for name, part in value.items()} if isinstance(value, dict) else value.to(dtype)


def floor_step(task: Task, setting: Setting) -> tuple[Step, int]:
    """The frozen model forward and backward, with a gradient to its input alone and no optimizer."""
    task.latents.requires_grad_(True)

    def step() -> Tensor:
        task.latents.grad = None
        loss = task.loss()
        loss.backward()
        return loss.detach()

    return step, 0


def peft_step(task: Task, setting: Setting, use_dora: bool) -> tuple[Step, int]:
    """As diffusers' DreamBooth scripts: float32 adapters, autocast around a bf16 base, AdamW over every tensor."""
    from diffusers.training_utils import cast_training_params
    from peft import LoraConfig

    rank, on_gpu = setting.rank, setting.device.type == "cuda"
    shape = {"r": rank, "lora_alpha": rank, "target_modules": TARGETS}
    task.unet.add_adapter(LoraConfig(**shape, init_lora_weights="gaussian", use_dora=use_dora))
    cast_training_params(task.unet, dtype=torch.float32)
    parameters = [parameter for parameter in task.unet.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=on_gpu)

    def step() -> Tensor:
        with torch.autocast(setting.device.type, torch.bfloat16, enabled=on_gpu):
            loss = task.loss()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return step, sum(parameter.numel() for parameter in parameters)


def ours_step(task: Task, setting: Setting, kind: str) -> tuple[Step, int]:
    """As ``training.stepper.Stepper``: norms and casts in ``prepare``, gradients in flat buffers, no autocast."""
    adapter = inject(BareBase(task.unet), AdapterConfig(kind=kind, rank=setting.rank))
    optimizer = ADAMW.make(adapter, OptimConfig())

    def step() -> Tensor:
        adapter.zero_grad()
        adapter.prepare()
        loss = task.loss()
        loss.backward()
        adapter.finish_gradients()
        optimizer.step()
        return loss.detach()

    return step, adapter.num_parameters()


VARIANTS: dict[str, Callable[[Task, Setting], tuple[Step, int]]] = {
    "floor": floor_step,
    "peft_lora": lambda task, setting: peft_step(task, setting, use_dora=False),
    "peft_dora": lambda task, setting: peft_step(task, setting, use_dora=True),
    "ours_lora": lambda task, setting: ours_step(task, setting, "lora"),
    "ours_dora": lambda task, setting: ours_step(task, setting, "dora"),
}


def start(name: str, setting: Setting) -> tuple[Step, Result]:
    """Build one variant and warm it up."""
    step, trainable = VARIANTS[name](make_task(setting), setting)
    first_loss, *_ = [step().item() for _ in range(WARM_UP)]
    return step, Result(name, trainable, first_loss)


def timed(step: Step, device: torch.device) -> float:
    """Milliseconds of one step."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return 1000 * (time.perf_counter() - began)


def take_turns(names: Sequence[str], setting: Setting) -> list[Result]:
    """All variants side by side, one step each a round; every round starts with another variant."""
    runners = [start(name, setting) for name in names]
    for turn in range(setting.steps):
        first = turn % len(runners)
        for step, result in runners[first:] + runners[:first]:
            result.ms.append(timed(step, setting.device))
    return [result for _, result in runners]


def one_by_one(names: Sequence[str], setting: Setting) -> list[Result]:
    """Each variant alone on the GPU, forth and back along the line: the times of both passes, the larger peak."""
    results: dict[str, Result] = {}
    for name in [*names, *reversed(names)]:
        gc.collect()  # models and adapters refer to each other
        torch.cuda.empty_cache()
        step, fresh = start(name, setting)
        result = results.setdefault(name, fresh)
        torch.cuda.reset_peak_memory_stats(setting.device)
        result.ms += [timed(step, setting.device) for _ in range(setting.steps)]
        peak = torch.cuda.max_memory_allocated(setting.device) / machine.GIB
        result.peak_gib = max(peak, result.peak_gib or 0.0)
        del step
    return [results[name] for name in names]


def ratios(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Medians over medians and peaks over peaks, of the variants that ran."""
    by_name = {row["variant"]: row for row in rows}
    found = {}
    for key, above, below in COMPARED:
        values = [by_name[name][key] for name in (above, below) if name in by_name]
        if len(values) == 2 and None not in values:
            found[f"{key} {above} / {below}"] = values[0] / values[1]
    return found


def show(setting: Setting, rows: list[dict[str, Any]]) -> None:
    """Print one setting's table."""
    dtype = str(setting.dtype).removeprefix("torch.")
    print(f"\n{setting.model}, batch {setting.batch_size}, rank {setting.rank}, base {dtype}")
    print(f"{'variant':<12}{'ms a step':>11}{'fastest':>10}{'slowest':>10}{'peak GiB':>10}{'trainable':>12}")
    for row in rows:
        peak = "-" if row["peak_gib"] is None else f"{row['peak_gib']:.2f}"
        times = f"{row['ms']:>11.1f}{row['fastest_ms']:>10.1f}{row['slowest_ms']:>10.1f}"
        print(f"{row['variant']:<12}{times}{peak:>10}{row['trainable']:>12,}")
    for name, ratio in ratios(rows).items():
        print(f"{name:<32}{ratio:>8.3f}")


def header(args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Where and with what the figures were made."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else machine.devices()[-1].name
    return {
        "date": date.today().isoformat(),
        "versions": {package: version for package, version in machine.versions().items() if version is not None},
        "hardware": {"device": device.type, "name": name, "threads": torch.get_num_threads()},
        "settings": {setting: value for setting, value in vars(args).items() if setting != "json"},
    }


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", choices=["toybox", *UNETS], default="toybox", help="random weights, except toybox")
    parser.add_argument("--batch_sizes", type=batch_sizes, default=[1, 4], metavar="N,N", help="half: class images")
    parser.add_argument("--rank", type=count, default=16)
    parser.add_argument("--steps", type=count, default=20, help="timed steps; on a GPU in each of two passes")
    parser.add_argument("--variants", type=_variants, default=list(VARIANTS), metavar="A,B", help=", ".join(VARIANTS))
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--threads", type=count, help="CPU threads; left out, torch's choice")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    args = parser.parse_args(argv)
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no GPU here")
    return args


def count(text: str) -> int:
    if not (text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"a whole number from 1 is needed, got {text!r}")
    return int(text)


def batch_sizes(text: str) -> list[int]:
    return [count(part) for part in text.split(",")]


def _variants(text: str) -> list[str]:
    names = list(dict.fromkeys(text.split(",")))
    unknown = [name for name in names if name not in VARIANTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown variant {unknown[0]!r}; known: {', '.join(VARIANTS)}")
    return names


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; the exit status."""
    args = parse(argv)
    device = torch.device("cuda" if args.device != "cpu" and torch.cuda.is_available() else "cpu")
    if args.threads:
        torch.set_num_threads(args.threads)
    if device.type == "cpu":
        keep_freed_memory()  # as our trainer does; the other variants gain from it as much
    report: dict[str, Any] = {**header(args, device), "runs": []}
    try:
        for batch_size in args.batch_sizes:
            setting = Setting(args.model, batch_size, args.rank, args.steps, device)
            results = (one_by_one if device.type == "cuda" else take_turns)(args.variants, setting)
            rows = [result.row() for result in results]
            show(setting, rows)
            report["runs"].append({"batch_size": batch_size, "rows": rows, "ratios": ratios(rows)})
    except DoraError as error:
        print(error, file=sys.stderr)
        return 2
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
