"""Adapters of every family, text encoders included: live, merged, a written pipeline and plain diffusers agree."""

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from bases import perturb
from PIL import Image
from safetensors.torch import load_file
from small_models import FAMILIES, small_pipeline

from dora_diffusion.adapters import AdapterState, inject, inject_state
from dora_diffusion.config import AdapterConfig, GenerateConfig, MergeConfig
from dora_diffusion.formats import WEIGHTS_NAME, load_adapter
from dora_diffusion.formats.diffusers_format import DIFFUSERS
from dora_diffusion.inference import Drawing, MergedPipeline, MergedWeights, draw_tensor, generate, merge
from dora_diffusion.models import BaseModel, load_base
from dora_diffusion.registry import FAMILIES as REGISTERED

PROMPTS = ["a photo of sks teapot", "a photo of a teapot on the beach"]


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small base of each family, as plain diffusers saves it."""
    path = tmp_path_factory.mktemp("small") / str(request.param)
    small_pipeline(request.param).save_pretrained(path)
    return path


@pytest.fixture(params=["dora", "lora"])
def trained(request: pytest.FixtureRequest, folder: Path) -> AdapterState:
    """A trained-looking adapter on every linear layer and convolution, and in every text encoder."""
    base = load_base(str(folder))
    config = AdapterConfig(
        kind=request.param, rank=2, alpha=3, targets="full", train_text_encoder=True, text_encoder_targets="attn-mlp"
    )
    adapter = perturb(inject(base, config), 0.1)
    return adapter.state(str(folder), {"instance_prompt": PROMPTS[0], **base.schedule_facts()})


@pytest.fixture
def run_folder(trained: AdapterState, tmp_path: Path) -> Path:
    DIFFUSERS.write(trained, tmp_path / "run" / WEIGHTS_NAME)
    return tmp_path / "run"


@torch.no_grad()
def prediction(pipe: Any) -> torch.Tensor:
    """What text encoders and UNet make of fixed prompts: everything an adapter can touch."""
    embeds = pipe.encode_prompt(PROMPTS, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False)
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(7))
    added = None
    if len(embeds) == 4:
        added = {"text_embeds": embeds[2], "time_ids": torch.tensor([[70.0, 90, 3, 0, 64, 64]]).repeat(2, 1)}
    return pipe.unet(noise, torch.tensor([400, 20]), embeds[0], added_cond_kwargs=added).sample


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours - theirs).norm() / theirs.norm()).item()


def plain(folder: Path) -> Any:
    return diffusers.DiffusionPipeline.from_pretrained(folder, dtype=torch.float32)


def test_live_merged_written_and_plain_diffusers_agree(
    folder: Path, trained: AdapterState, run_folder: Path, tmp_path: Path
) -> None:
    base = load_base(str(folder))
    untouched = prediction(base.pipe)
    inject_state(base, trained)
    live = prediction(base.pipe)
    assert relative(live, untouched) > 0.05

    merged = load_base(str(folder))
    MergedWeights(merged).switch(trained)
    assert relative(prediction(merged.pipe), live) <= 1e-5

    theirs = plain(folder)
    theirs.load_lora_weights(run_folder)
    assert relative(prediction(theirs), live) <= 1e-5

    written = merge(MergeConfig(adapter=run_folder, output_dir=tmp_path / "merged"))
    again = plain(written)
    assert type(again) is type(theirs) and relative(prediction(again), live) <= 1e-5


def test_diffusers_takes_every_tensor_of_the_file(folder: Path, trained: AdapterState, run_folder: Path) -> None:
    pipe = plain(folder)
    pipe.load_lora_weights(run_folder)
    file = load_file(run_folder / WEIGHTS_NAME)
    parts = ["unet", *(part for part in ("text_encoder", "text_encoder_2") if hasattr(pipe, part))]
    loaded = [value for part in parts for name, value in getattr(pipe, part).named_parameters() if "lora_" in name]
    assert len(loaded) == len(file)
    assert {key.partition(".")[0] for key in file} == set(parts)
    names = [key for key in file if key.startswith("text_encoder")]
    assert names and all(key.split(".")[1] == "text_model" for key in names)
    again = load_adapter(run_folder)
    assert again.kind == trained.kind and list(again.layers) == sorted(trained.layers)


def test_a_picture_is_plain_diffusers_own(folder: Path) -> None:
    """The same prompt, seed and steps; an empty negative prompt is none at all, which SDXL tells apart."""
    base = load_base(str(folder))
    ours = draw_tensor(base, PROMPTS[:1], [3], Drawing(num_inference_steps=3, guidance_scale=4.0))
    theirs = plain(folder)(
        PROMPTS[0],
        num_inference_steps=3,
        guidance_scale=4.0,
        generator=torch.Generator().manual_seed(3),
        output_type="pt",
    ).images
    torch.testing.assert_close(ours, torch.as_tensor(theirs), rtol=0, atol=2e-4)


def test_drawing_leaves_the_base_as_it_was(folder: Path) -> None:
    base = load_base(str(folder))
    before, scheduler = dict(base.pipe.config), base.pipe.scheduler
    draw_tensor(base, PROMPTS[:1], [3], Drawing(num_inference_steps=2, sampler="euler"))
    assert dict(base.pipe.config) == before and base.pipe.scheduler is scheduler


def test_generate_and_the_merged_pipeline_draw_the_same(folder: Path, trained: AdapterState, run_folder: Path) -> None:
    config = GenerateConfig(
        adapter=run_folder, num_images=1, num_inference_steps=2, output_dir=run_folder / "out", cpu=True
    )
    (path,) = generate(config)
    pipeline = MergedPipeline(str(folder), device="cpu")
    base = pipeline.draw(prompt=PROMPTS[0], num_inference_steps=2)[0]
    assert pipeline.switch(run_folder) == len(trained.layers)
    picture = pipeline.draw(prompt=PROMPTS[0], num_inference_steps=2)[0]
    assert (np.asarray(picture) == np.asarray(Image.open(path))).all()
    assert (np.asarray(picture) != np.asarray(base)).any()


def test_a_base_of_another_family_is_refused_by_its_layers(trained: AdapterState, folder: Path) -> None:
    from dora_diffusion.errors import AdapterError

    other = next(name for name in FAMILIES if name != folder.name)
    base = BaseModel(other, REGISTERED.load(other), small_pipeline(other))
    with pytest.raises(AdapterError, match="The adapter (was made for|does not fit)"):
        inject_state(base, trained)
