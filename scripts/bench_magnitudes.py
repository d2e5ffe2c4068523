"""How many magnitudes move in a short run on a bf16 base: ours, and diffusers' DoRA recipe, on the same noise.

    python scripts/bench_magnitudes.py --steps 40 --learning_rate 1e-4

diffusers' recipe casts adapters to float32 only for fp16; with ``--mixed_precision bf16`` they stay bf16, where a step
of 1e-4 on a magnitude near 1 rounds to nothing.
"""

import argparse
import json

import torch
from peft import LoraConfig

from dora_diffusion.adapters import inject
from dora_diffusion.config import AdapterConfig, OptimConfig
from dora_diffusion.models import load_base
from dora_diffusion.training.optimizers.adamw import ADAMW

TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]


def inputs(device: str) -> dict[str, torch.Tensor]:
    """One fixed batch for both."""
    draw = torch.Generator().manual_seed(0)
    sample = torch.randn(2, 8, 16, 16, generator=draw)
    hidden = torch.randn(2, 32, 256, generator=draw)
    return {
        "sample": sample.to(device),
        "timestep": torch.tensor([200, 700], device=device),
        "encoder_hidden_states": hidden.to(device),
    }


def loss_of(unet: torch.nn.Module, batch: dict[str, torch.Tensor], step: int) -> torch.Tensor:
    """A denoising loss whose target changes with the step."""
    target = torch.randn(batch["sample"].shape, generator=torch.Generator().manual_seed(step)).to(
        batch["sample"].device
    )
    given = {name: value.bfloat16() if value.is_floating_point() else value for name, value in batch.items()}
    return torch.nn.functional.mse_loss(unet(**given).sample.float(), target)


def moved(before: torch.Tensor, after: torch.Tensor) -> float:
    """The share of entries that changed, in percent."""
    return 100 * (before != after).float().mean().item()


def ours(steps: int, learning_rate: float, device: str) -> float:
    """Our trainer's adapter and optimizer."""
    base = load_base("toybox", dtype=torch.bfloat16).to(device)
    adapter = inject(base, AdapterConfig(rank=4))
    (buffer,) = [b for b in adapter.buffers if b.role == "magnitude"]
    before = buffer.parameter.detach().clone()
    optimizer = ADAMW.make(adapter, OptimConfig(learning_rate=learning_rate))
    batch = inputs(device)
    for step in range(steps):
        adapter.zero_grad()
        loss_of(base.unet, batch, step).backward()
        adapter.finish_gradients()
        optimizer.step()
    return moved(before, buffer.parameter.detach())


def diffusers_recipe(steps: int, learning_rate: float, device: str) -> float:
    """What ``train_dreambooth_lora_sdxl.py --use_dora --mixed_precision bf16`` builds: adapters in the base's bf16."""
    unet = load_base("toybox", dtype=torch.bfloat16).to(device).unet
    unet.requires_grad_(False)
    unet.add_adapter(LoraConfig(r=4, lora_alpha=4, use_dora=True, init_lora_weights="gaussian", target_modules=TARGETS))
    parameters = {name: p for name, p in unet.named_parameters() if p.requires_grad}
    before = torch.cat([p.detach().flatten() for name, p in parameters.items() if "magnitude" in name])
    optimizer = torch.optim.AdamW(parameters.values(), lr=learning_rate, weight_decay=1e-4)
    batch = inputs(device)
    for step in range(steps):
        optimizer.zero_grad()
        loss_of(unet, batch, step).backward()
        optimizer.step()
    return moved(before, torch.cat([p.detach().flatten() for name, p in parameters.items() if "magnitude" in name]))


def main() -> None:
    """Run both and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--learning_rate", type=float, default=1e-4)
    given = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    result = {
        "steps": given.steps,
        "learning_rate": given.learning_rate,
        "device": device,
        "ours_moved_percent": round(ours(given.steps, given.learning_rate, device), 2),
        "diffusers_recipe_moved_percent": round(diffusers_recipe(given.steps, given.learning_rate, device), 2),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
