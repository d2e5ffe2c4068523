"""A step of the trainer against the arithmetic of diffusers' ``train_dreambooth_lora.py`` and ``..._lora_sdxl.py``.

The trainer does a step with an adapter that was moved away from its start, where A has no gradient. Latents, noise and
timesteps are written down, with the adapter and its gradients. Then the step is done again as those scripts do it, with
PEFT's adapters in plain models, and the loss and every gradient are compared.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import torch.nn.functional as F
from bases import perturb
from diffusers import DDPMScheduler
from peft import LoraConfig
from PIL import Image
from small_models import FAMILIES, small_pipeline
from torch import Tensor
from training_runs import PHOTOS, Heard, run_it, small_config

from dora_diffusion.adapters import Adapter, inject
from dora_diffusion.training.events import StepDone

RESOLUTION = 64
PRIOR_WEIGHT = 0.7
RANK = 3
TOLERANCE = 1e-5


@dataclass
class Recorded:
    """What the trainer's step was made of, and what came of it. Gradients and parameters by layer and role."""

    latents: Tensor = field(default_factory=lambda: torch.empty(0))
    noise: Tensor = field(default_factory=lambda: torch.empty(0))
    timesteps: Tensor = field(default_factory=lambda: torch.empty(0))
    parameters: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    gradients: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    loss: float = 0.0


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A folder with one photo that is wider than high, 120 x 80 pixels."""
    folder = tmp_path / "photo"
    folder.mkdir()
    source = next(iter(sorted(PHOTOS.glob("*.jpg"))))
    Image.open(source).convert("RGB").resize((120, 80)).save(folder / "wide.png")
    return folder


def record_a_step(base: Path, photo: Path, kind: str, prior: bool, output: Path, patch: pytest.MonkeyPatch) -> Recorded:
    """Train one step, text encoders included; what it saw and made."""
    recorded = Recorded()
    add_noise, finish = DDPMScheduler.add_noise, Adapter.finish_gradients

    def noted_add_noise(self: Any, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        recorded.latents, recorded.noise, recorded.timesteps = latents.clone(), noise.clone(), timesteps.clone()
        return add_noise(self, latents, noise, timesteps)

    def noted_finish(self: Adapter) -> None:
        finish(self)
        roles = ("A", "B", "magnitude") if self.variant.has_magnitude else ("A", "B")
        for name, layer in self.layers.items():
            slots = {role: getattr(layer.slot, role) for role in roles}
            recorded.parameters[name] = {role: slot.detach().clone() for role, slot in slots.items()}
            recorded.gradients[name] = {role: slot.grad.clone() for role, slot in slots.items()}

    patch.setattr("dora_diffusion.training.assembly.inject", lambda *how: perturb(inject(*how), 0.1))
    patch.setattr(DDPMScheduler, "add_noise", noted_add_noise)
    patch.setattr(Adapter, "finish_gradients", noted_finish)
    heard = Heard()
    class_images = {"with_prior_preservation": True, "prior_loss_weight": PRIOR_WEIGHT, "num_class_images": 1}
    config = small_config(
        output,
        1,
        model={"pretrained_model_name_or_path": str(base)},
        data={"instance_data_dir": photo, "resolution": RESOLUTION, "center_crop": True},
        adapter={"kind": kind, "rank": RANK, "train_text_encoder": True},
        prior={**class_images, "class_data_dir": photo} if prior else {},
        run={"sentinels": False},  # one of them wants an adapter that starts as the base
    )
    run_it(config, heard)
    recorded.loss = heard.of(StepDone)[-1].loss
    patch.undo()
    return recorded


def with_peft(pipe: Any, recorded: Recorded) -> dict[str, dict[str, Tensor]]:
    """Add PEFT's adapters as the scripts do, with the recorded values; their parameters by layer and role."""
    use_dora = "magnitude" in next(iter(recorded.parameters.values()))
    how = {"r": RANK, "lora_alpha": RANK, "use_dora": use_dora, "init_lora_weights": "gaussian"}
    targets = {"unet": ["to_k", "to_q", "to_v", "to_out.0"]}
    for part in ("text_encoder", "text_encoder_2"):
        if getattr(pipe, part, None) is not None:
            targets[part] = ["q_proj", "k_proj", "v_proj", "out_proj"]
    for model in (pipe.vae, *(getattr(pipe, part) for part in targets)):
        model.requires_grad_(False)
    parameters: dict[str, dict[str, Tensor]] = {}
    for part, modules in targets.items():
        model = getattr(pipe, part)
        model.add_adapter(LoraConfig(**how, target_modules=modules))
        for path, module in model.named_modules():
            if hasattr(module, "lora_A"):
                prefix = "" if part == "unet" or path.startswith("text_model.") else "text_model."
                roles = {"A": module.lora_A["default"].weight, "B": module.lora_B["default"].weight}
                if use_dora:
                    roles["magnitude"] = module.lora_magnitude_vector["default"].weight
                parameters[f"{part}.{prefix}{path}"] = roles
    with torch.no_grad():
        for name, values in recorded.parameters.items():
            for role, value in values.items():
                parameters[name][role].copy_(value)
    return parameters


def tokens(tokenizer: Any, prompts: list[str]) -> Tensor:
    """``tokenize_prompt`` of the scripts."""
    return tokenizer(
        prompts, truncation=True, padding="max_length", max_length=tokenizer.model_max_length, return_tensors="pt"
    ).input_ids


def compute_time_ids(photo: Path) -> Tensor:
    """As the SDXL script: the photo's own size, the corner of the crop after resizing, the target size; (1, 6)."""
    with Image.open(next(photo.iterdir())) as image:
        original_size = (image.height, image.width)
    scale = RESOLUTION / min(original_size)
    resized = [round(side * scale) for side in original_size]
    crops_coords_top_left = tuple(max(0, round((side - RESOLUTION) / 2.0)) for side in resized)
    assert (original_size, crops_coords_top_left) == ((80, 120), (0, 16))
    return torch.tensor([[*original_size, *crops_coords_top_left, RESOLUTION, RESOLUTION]]).float()


def script_prediction(pipe: Any, noisy: Tensor, timesteps: Tensor, prompts: list[str], photo: Path) -> Tensor:
    """The scripts' ``model_pred``."""
    if not hasattr(pipe, "text_encoder_2"):
        encoder_hidden_states = pipe.text_encoder(tokens(pipe.tokenizer, prompts), return_dict=False)[0]
        return pipe.unet(noisy, timesteps, encoder_hidden_states, return_dict=False)[0]
    prompt_embeds_list = []
    for tokenizer, text_encoder in [(pipe.tokenizer, pipe.text_encoder), (pipe.tokenizer_2, pipe.text_encoder_2)]:
        outputs = text_encoder(tokens(tokenizer, prompts), output_hidden_states=True, return_dict=False)
        pooled = outputs[0]
        prompt_embeds_list.append(outputs[-1][-2])
    conditions = {"time_ids": compute_time_ids(photo).repeat(len(prompts), 1), "text_embeds": pooled}
    prompt_embeds = torch.cat(prompt_embeds_list, dim=-1)
    return pipe.unet(noisy, timesteps, prompt_embeds, added_cond_kwargs=conditions, return_dict=False)[0]


def script_loss(pipe: Any, recorded: Recorded, prior: bool, photo: Path) -> Tensor:
    """The scripts' loss on the recorded latents, noise and timesteps."""
    noise_scheduler = DDPMScheduler.from_config(pipe.scheduler.config)
    latents, noise, timesteps = recorded.latents, recorded.noise, recorded.timesteps
    prompts = ["a photo of sks teapot"] + (["a photo of a teapot"] if prior else [])
    noisy = noise_scheduler.add_noise(latents, noise, timesteps)
    model_pred = script_prediction(pipe, noisy, timesteps, prompts, photo)
    if noise_scheduler.config.prediction_type == "epsilon":
        target = noise
    else:
        target = noise_scheduler.get_velocity(latents, noise, timesteps)
    if not prior:
        return F.mse_loss(model_pred.float(), target.float(), reduction="mean")
    model_pred, model_pred_prior = torch.chunk(model_pred, 2, dim=0)
    target, target_prior = torch.chunk(target, 2, dim=0)
    loss = F.mse_loss(model_pred.float(), target.float(), reduction="mean")
    prior_loss = F.mse_loss(model_pred_prior.float(), target_prior.float(), reduction="mean")
    return loss + PRIOR_WEIGHT * prior_loss


@pytest.mark.parametrize("prior", [False, True], ids=["plain", "prior"])
@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_is_the_scripts_step(
    family: str, kind: str, prior: bool, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "base"
    small_pipeline(family).save_pretrained(base)
    recorded = record_a_step(base, photo, kind, prior, tmp_path / "run", monkeypatch)
    pipe = diffusers.DiffusionPipeline.from_pretrained(base, dtype=torch.float32)
    parameters = with_peft(pipe, recorded)
    loss = script_loss(pipe, recorded, prior, photo)
    loss.backward()

    assert recorded.loss == pytest.approx(loss.item(), rel=TOLERANCE)
    worst: dict[str, float] = {}
    for name, gradients in recorded.gradients.items():
        for role, ours in gradients.items():
            theirs = parameters[name][role].grad
            assert theirs.norm() > 0, f"{name} {role}"
            worst[f"{name} {role}"] = ((ours - theirs).norm() / theirs.norm()).item()
    assert max(worst.values()) <= TOLERANCE, max(worst, key=worst.__getitem__)
    # What the scripts adapt besides has no gradient there: it is what is left out here.
    others = [name for name in parameters if name not in recorded.gradients]
    assert all(p.grad is None or not p.grad.any() for name in others for p in parameters[name].values())
    assert len(others) == (4 if family == "sdxl" else 0)
