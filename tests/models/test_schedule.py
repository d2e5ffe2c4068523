"""The noise schedule: the model's own, overridden, and rescaled to zero terminal SNR."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import small_pipeline

from dora_diffusion.errors import ConfigError
from dora_diffusion.inference import Drawing, draw_tensor
from dora_diffusion.models import BaseModel, load_base, schedule_from
from dora_diffusion.models.schedule import check_steps, is_rescaled, set_schedule
from dora_diffusion.registry import FAMILIES, SAMPLERS


@pytest.fixture
def pipe() -> Any:
    """SD 2.x: it predicts v."""
    return small_pipeline("sd2")


def rescaled_alphas() -> torch.Tensor:
    """Algorithm 1 of arXiv:2305.08891 on the SD betas, in float64."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    root = (1 - betas).cumprod(0).sqrt()
    return ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2


def test_training_ends_in_pure_noise(pipe: Any) -> None:
    from diffusers import DDPMScheduler

    set_schedule(pipe, None, True)
    schedule = DDPMScheduler.from_config(pipe.scheduler.config)  # what training makes of it
    torch.testing.assert_close(schedule.alphas_cumprod.double(), rescaled_alphas(), rtol=0, atol=2e-6)
    latents, noise = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    last = torch.tensor([999, 999])
    assert torch.equal(schedule.add_noise(latents, noise, last), noise)
    torch.testing.assert_close(schedule.get_velocity(latents, noise, last), -latents)


@pytest.mark.parametrize("sampler", ["model", *SAMPLERS])
def test_drawing_begins_at_the_last_timestep(pipe: Any, sampler: str) -> None:
    from dora_diffusion.inference.draw import _with_sampler

    base = BaseModel("small", FAMILIES.load("sd2"), pipe)
    set_schedule(pipe, None, True)
    drawn_with = _with_sampler(base, sampler).scheduler
    drawn_with.set_timesteps(5)
    assert is_rescaled(drawn_with) and int(drawn_with.timesteps[0]) == 999
    assert drawn_with.alphas_cumprod[-1] < 1e-6
    picture = draw_tensor(base, ["a mug"], [0], Drawing(num_inference_steps=3, height=64, width=64, sampler=sampler))
    assert torch.isfinite(picture).all()


def test_a_scheduler_that_cannot_be_rescaled_gives_way_to_ddim(pipe: Any) -> None:
    from diffusers import DDIMScheduler, PNDMScheduler

    pipe.scheduler = PNDMScheduler.from_config(pipe.scheduler.config)
    set_schedule(pipe, None, False)
    assert type(pipe.scheduler) is PNDMScheduler
    set_schedule(pipe, None, True)
    assert type(pipe.scheduler) is DDIMScheduler and pipe.scheduler.config.prediction_type == "v_prediction"
    assert pipe.scheduler.config.timestep_spacing == "trailing" and pipe.scheduler.config.beta_end == 0.012


@pytest.mark.parametrize("given", [None, "epsilon"])
def test_a_model_that_predicts_noise_is_refused(given: str | None) -> None:
    pipe = small_pipeline("sd1" if given is None else "sd2")
    before = pipe.scheduler
    with pytest.raises(ConfigError, match="predicts the noise .*Leave --rescale_betas_zero_snr out, or give --predict"):
        set_schedule(pipe, given, True)
    assert pipe.scheduler is before


def test_an_adapter_remembers_the_schedule(pipe: Any, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path)
    base = load_base(str(tmp_path), rescale_betas_zero_snr=True)
    facts = base.schedule_facts()
    assert facts == {"prediction_type": "v_prediction", "rescale_betas_zero_snr": "true"}
    assert load_base(str(tmp_path), **schedule_from(facts)).pipe.scheduler.config == base.pipe.scheduler.config
    plain = load_base(str(tmp_path))
    assert plain.schedule_facts() == {"prediction_type": "v_prediction"}
    assert not is_rescaled(plain.pipe.scheduler) and plain.pipe.scheduler.config.timestep_spacing == "leading"
    assert schedule_from({}) == {"prediction_type": None, "rescale_betas_zero_snr": False}


def walked(scheduler: Any, steps: int) -> bool:
    """Whether sampling on zeros comes to its end with numbers, on the timesteps that the base was trained on."""
    scheduler.set_timesteps(steps)
    sample = torch.zeros(1, 1, 2, 2)
    for timestep in scheduler.timesteps:
        assert 0 <= timestep < scheduler.config.num_train_timesteps
        noisy = scheduler.scale_model_input(sample, timestep)
        sample = scheduler.step(torch.zeros_like(noisy), timestep, sample, return_dict=False)[0]
    return bool(torch.isfinite(sample).all())


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("name", ["pndm", *SAMPLERS])
def test_steps_that_a_sampler_cannot_walk_are_refused_with_a_number_that_it_can(name: str, spacing: str) -> None:
    from diffusers import PNDMScheduler

    kind = PNDMScheduler if name == "pndm" else SAMPLERS.load(name)
    schedule = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}
    schedule |= {"skip_prk_steps": True} if name == "pndm" else {}  # as in each known base
    scheduler = kind(**{**schedule, "timestep_spacing": spacing})
    refused = []
    for steps in (1, 2, 3, 25, 60, 61, 150, 499, 500, 501, 998, 999, 1000):
        try:
            check_steps(scheduler, steps, name)
        except ConfigError as error:
            said = re.search(rf"^{steps} sampling steps .* 1000 timesteps, .* {name}. Take (\d+);", str(error))
            assert said is not None and steps - 3 < int(said[1]) < steps
            refused.append(steps)
            steps = int(said[1])
        assert walked(kind(**{**schedule, "timestep_spacing": spacing}), steps)
    usual = {"leading": [1000], "linspace": [], "trailing": [61, 499, 998]}[spacing]  # rounded, they end at step -1
    assert refused == usual or spacing != "trailing" and refused in ([999, 1000], [1000])
