"""Pictures from a file, through diffusers' own loading, beside those from our merged weights."""

import math
from pathlib import Path

import pytest
import torch
from moved import moved_state

from dora_diffusion.evaluation.picture_proof import PicturePair, picture_pair, psnr
from dora_diffusion.formats.base_weights import LoadedBase
from dora_diffusion.formats.verify import read_adapter_file, readers_of
from dora_diffusion.inference import Drawing, MergedWeights, draw_tensor
from dora_diffusion.models import load_base
from dora_diffusion.registry import FORMATS, READERS

PROMPT, STEPS = "a photo of sks teapot on the beach", Drawing(num_inference_steps=6)


def test_psnr_is_that_of_the_floats() -> None:
    ours = torch.full((3, 4, 4), 0.5)
    assert psnr(ours, ours + 0.1) == pytest.approx(20, abs=1e-4)
    assert psnr(ours, ours + 0.001) == pytest.approx(60, abs=1e-3)  # 8 bit would show a quarter of a step
    assert psnr(ours, ours) == math.inf


def test_ours_is_on_the_left() -> None:
    pair = PicturePair(torch.zeros(3, 2, 3), torch.ones(3, 2, 3))
    image = pair.side_by_side()
    assert image.size == (6, 2) and image.getpixel((0, 0)) == (0, 0, 0) and image.getpixel((5, 1)) == (255, 255, 255)


@pytest.fixture(scope="module")
def ours() -> torch.Tensor:
    """The picture of our merged pipeline, text encoder included."""
    base = load_base("toybox")
    MergedWeights(base, keep=0).switch(moved_state("dora", targets="full"))
    return draw_tensor(base, [PROMPT], [3], STEPS)[0]


@pytest.mark.parametrize("name", [name for name in FORMATS if "diffusers" in readers_of(name)])
def test_diffusers_draws_the_same_picture_from_the_file(name: str, ours: torch.Tensor, tmp_path: Path) -> None:
    base = load_base("toybox")
    (plain,) = draw_tensor(base, [PROMPT], [3], STEPS)
    assert psnr(ours, plain) < 30  # the adapter shows
    FORMATS.load(name).write(moved_state("dora", targets="full"), tmp_path / "a.safetensors", LoadedBase(base))
    base.pipe.load_lora_weights(tmp_path, weight_name="a.safetensors")
    (theirs,) = draw_tensor(base, [PROMPT], [3], STEPS)
    assert psnr(ours, theirs) >= 60


def test_a_reader_that_loads_nothing_draws_the_base(tmp_path: Path) -> None:
    state, base = moved_state("dora"), load_base("toybox")
    FORMATS.load("diffusers").write(state, tmp_path / "a.safetensors")
    file = read_adapter_file(tmp_path / "a.safetensors")
    (plain,) = draw_tensor(base, [PROMPT], [3], STEPS)
    pair = picture_pair(base, state, file, READERS.load("forge"), PROMPT, 3, STEPS)
    assert torch.equal(pair.theirs, plain) and not torch.equal(pair.ours, plain)
