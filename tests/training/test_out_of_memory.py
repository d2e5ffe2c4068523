"""Memory that runs out outside a step: what was being done and which settings need less; status 2, no traceback."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from training_runs import PHOTOS

from dora_diffusion.cli import main
from dora_diffusion.errors import ModelError
from dora_diffusion.inference.out_of_memory import memory_told
from dora_diffusion.models import BaseModel
from dora_diffusion.training import assembly, preview, prior
from dora_diffusion.training.latent_cache import LatentsOnDisk

Patch = pytest.MonkeyPatch
Said = Callable[..., str]
FULL = "CUDA out of memory. Tried to allocate 2.00 GiB."
OTHERS = "ending other programs that use this memory."


def full(*_: Any, **__: Any) -> Any:
    raise torch.OutOfMemoryError(FULL)


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Said:
    """Train with these flags, which must end with status 2 and one plain line; returns it."""

    def run(*flags: str, steps: int = 1) -> str:
        given = ["--instance_data_dir", str(PHOTOS), "--class_noun", "teapot", "--resolution", "64", "--rank", "4"]
        given += ["--output_dir", str(tmp_path / "run"), "--max_train_steps", str(steps), "--cpu"]
        assert main(["train", *given, *flags]) == 2
        said = capsys.readouterr().err
        assert "Traceback" not in said and "OutOfMemoryError" not in said and FULL not in said
        (line,) = [line for line in said.splitlines() if line.startswith("dora-diffusion train: ")]
        return line.removeprefix("dora-diffusion train: ")

    return run


def test_the_base_does_not_fit(refused: Said, tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(BaseModel, "to", full)
    assert refused() == (
        "Out of memory while loading the base. What helps: --mixed_precision bf16; a smaller base; " + OTHERS
    )
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_a_library_runs_out_of_memory_as_it_reads_the_base(refused: Said, monkeypatch: Patch) -> None:
    """What a library raises is put into words as the model's fault; this is not."""
    from diffusers import StableDiffusionPipeline

    def no_memory(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(StableDiffusionPipeline, "from_pretrained", no_memory)
    assert refused("--mixed_precision", "bf16") == (
        "Out of memory while loading the base. What helps: a smaller base; " + OTHERS
    )


def test_what_is_put_beside_the_base_does_not_fit(refused: Said, monkeypatch: Patch) -> None:
    monkeypatch.setattr(assembly, "inject", full)
    assert refused("--train_text_encoder", "--targets", "attn-mlp") == (
        "Out of memory while putting the run together. What helps: --mixed_precision bf16; no --train_text_encoder; "
        "--targets attn; a --rank below 4; a smaller base; " + OTHERS
    )


def test_a_picture_does_not_pass_through_the_autoencoder(refused: Said, monkeypatch: Patch) -> None:
    """Where a run encodes everything before its first step: on a GPU, here one in name alone."""
    parts_of = assembly._parts

    def parts(*given: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(BaseModel, "device", property(lambda base: torch.device("meta")))
            patch.setattr(LatentsOnDisk, "__call__", full)
            return parts_of(*given)

    monkeypatch.setattr(assembly, "_parts", parts)
    assert refused("--center_crop", "--cache_latents_to_disk") == (
        "Out of memory while encoding the pictures. What helps: a --resolution below 64; --mixed_precision bf16; "
        + OTHERS
    )


def test_class_images_are_drawn_in_too_large_batches(refused: Said, tmp_path: Path, monkeypatch: Patch) -> None:
    """The first batch is kept."""
    drawn: list[int] = []

    def draw(base: BaseModel, prompts: list[str], seeds: list[int], drawing: Any) -> list[Image.Image]:
        if drawn:
            full()
        drawn.extend(seeds)
        return [Image.new("RGB", (drawing.width, drawing.height)) for _ in seeds]

    monkeypatch.setattr(prior, "draw", draw)
    folder = tmp_path / "class"
    flags = ["--with_prior_preservation", "--num_class_images", "5", "--sample_batch_size", "2"]
    assert refused(*flags, "--class_data_dir", str(folder)) == (
        "Out of memory while drawing class images. What helps: a --sample_batch_size below 2 (the same images); a "
        "--resolution below 64; --mixed_precision bf16; --prior_kind prediction, which needs no images; images of your "
        f"own in --class_data_dir; {OTHERS} Class images made so far are kept as long as nothing that shapes them "
        "changes."
    )
    assert len(list(folder.rglob("*.png"))) == 2


def test_previews_do_not_fit_and_no_step_is_lost(
    refused: Said, tmp_path: Path, monkeypatch: Patch, capsys: pytest.CaptureFixture[str]
) -> None:
    previews = ("--validation_prompt", "a photo of sks teapot", "--validation_steps", "2")
    with monkeypatch.context() as patch:
        patch.setattr(preview, "draw", full)
        assert refused(*previews, "--checkpointing_steps", "0", steps=3) == (
            "Out of memory while drawing previews. What helps: fewer than 4 pictures in all (--num_validation_images), "
            f"which are drawn at once; no --validation_prompt; {OTHERS} Step 2 is saved: with another setting of "
            "previews the same command goes on from there."
        )
    assert (tmp_path / "run" / "checkpoint-2" / "manifest.json").is_file()
    given = ["--instance_data_dir", str(PHOTOS), "--class_noun", "teapot", "--resolution", "64", "--rank", "4", "--cpu"]
    given += ["--output_dir", str(tmp_path / "run"), "--max_train_steps", "3", "--checkpointing_steps", "0"]
    assert main(["train", *given]) == 0
    assert "Resuming from checkpoint-2" in capsys.readouterr().err


def test_drawing_with_an_adapter_does_not_fit(
    tmp_path: Path, monkeypatch: Patch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[int] = []

    def draw(base: BaseModel, prompts: list[str], seeds: list[int], *_: Any) -> list[Image.Image]:
        calls.extend(seeds)
        return full() if len(calls) > 2 else [Image.new("RGB", (64, 64)) for _ in seeds]

    monkeypatch.setattr(import_module("dora_diffusion.inference.generate"), "draw", draw)
    flags = ["--prompt", "a teapot", "--cpu", "--sample_batch_size", "2", "--output_dir", str(tmp_path / "out")]
    assert main(["generate", *flags]) == 2
    assert capsys.readouterr().err == (
        "dora-diffusion generate: Out of memory while drawing. What helps: a --sample_batch_size below 2 (the same "
        f"pictures); a lower --height and --width; --precision bf16; {OTHERS} The 2 drawn before are kept.\n"
    )
    assert len(list((tmp_path / "out").glob("*.png"))) == 2


@pytest.mark.parametrize("error", [RuntimeError("shapes"), ModelError("no such model"), KeyError("x")])
def test_other_errors_are_not_touched(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, memory_told("drawing", []):
        raise error
    assert caught.value is error
