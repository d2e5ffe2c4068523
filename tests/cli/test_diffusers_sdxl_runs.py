"""The commands of diffusers' own SDXL tests, run on a small random SDXL, with diffusers' assertions."""

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from small_models import small_pipeline
from test_diffusers_commands import CAPTIONS, PHOTOS, SDXL, SNR, checkpoints

from dora_diffusion.cli import main
from dora_diffusion.formats import WEIGHTS_NAME, read_safetensors


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdxl") / "model"
    small_pipeline("sdxl").save_pretrained(folder)
    return folder


def run(command: str, model: Path, out: Path, photos: Path = PHOTOS) -> set[str]:
    """Run a command to its end; the names of the tensors in its adapter file."""
    assert main(["train", *shlex.split(command.format(model=model, photos=photos, out=out))]) == 0
    return set(read_safetensors(out / WEIGHTS_NAME)[0])


@pytest.mark.parametrize("name", ["plain", "text encoder"])
def test_a_run_of_two_steps(tmp_path: Path, model: Path, name: str) -> None:
    keys = run(SDXL[name], model, tmp_path)
    assert keys and all("lora" in key for key in keys)
    parts = {"unet", "text_encoder", "text_encoder_2"} if name == "text encoder" else {"unet"}
    assert {key.partition(".")[0] for key in keys} == parts


@pytest.mark.parametrize("more", ["", " --train_text_encoder"])
def test_captions_from_a_column(tmp_path: Path, model: Path, more: str) -> None:
    shutil.copytree(PHOTOS, tmp_path / "photos")
    rows = [
        {"file_name": photo.name, "text": f"caption {number}"}
        for number, photo in enumerate(sorted((tmp_path / "photos").glob("*.jpg")))
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "photos" / "metadata.jsonl").write_text(text, encoding="utf-8")
    assert run(f"{CAPTIONS}{more}", model, tmp_path / "out", tmp_path / "photos")


def test_min_snr_beside_prior_preservation(tmp_path: Path, model: Path) -> None:
    """diffusers' script weighs the photos by the class images' timesteps too, which fails with two photos a step."""
    assert run(f"{SNR} --num_class_images 5", model, tmp_path)


def test_checkpoints_and_a_picture_by_diffusers(tmp_path: Path, model: Path) -> None:
    run(SDXL["checkpoints"], model, tmp_path)
    assert checkpoints(tmp_path) == {"checkpoint-4", "checkpoint-6"}
    pipe: Any = StableDiffusionXLPipeline.from_pretrained(model, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    pipe.load_lora_weights(str(tmp_path))
    assert pipe("a prompt", num_inference_steps=1, height=64, width=64).images[0].size == (64, 64)


def test_checkpoints_where_the_steps_do_not_divide(tmp_path: Path, model: Path) -> None:
    """Of seven steps the scripts keep 4 and 6, and throw the seventh's state away; here a run can be extended."""
    run(SDXL["text encoder, checkpoints"], model, tmp_path)
    assert checkpoints(tmp_path) == {"checkpoint-4", "checkpoint-6"}
    assert (tmp_path / "final-7").is_dir()
