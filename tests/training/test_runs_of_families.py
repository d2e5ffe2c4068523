"""Whole runs on each family: from a folder, from one file, on a rescaled schedule; what they write says so."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from original_layout import original_layout
from safetensors.torch import save_file
from small_models import FAMILIES, small_pipeline
from training_runs import Heard, run_it, small_config, small_prior

from dora_diffusion.cli.inspect import describe
from dora_diffusion.errors import ConfigError, TrainingError
from dora_diffusion.formats import load_adapter
from dora_diffusion.models import load_base
from dora_diffusion.training.events import StepDone

PIPELINES = {"sd1": "StableDiffusionPipeline", "sd2": "StableDiffusionPipeline", "sdxl": "StableDiffusionXLPipeline"}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_on_a_folder(family: str, tmp_path: Path) -> None:
    """Twice the same bytes; previews; a card that loads the right pipeline; a file that names both text encoders."""
    base = tmp_path / "base"
    small_pipeline(family).save_pretrained(base)
    adapters = []
    for name in ("first", "second"):
        config = small_config(
            tmp_path / name,
            2,
            model={"pretrained_model_name_or_path": str(base)},
            adapter={"train_text_encoder": True},
            run={"validation_prompt": ["a photo of sks teapot"], "num_validation_images": 1},
        )
        adapters.append(run_it(config).adapter.read_bytes())
    assert adapters[0] == adapters[1]
    report = describe(tmp_path / "first")
    encoders = {"text_encoder": 8, "text_encoder_2": 8} if family == "sdxl" else {"text_encoder": 8}
    assert {name: count for name, count in report["components"].items() if name != "unet"} == encoders
    assert report["untrained_layers"] == [] and report["base"] == str(base)
    card = (tmp_path / "first" / "README.md").read_text()
    assert f'pipe = {PIPELINES[family]}.from_pretrained("{base}", dtype=torch.float32)' in card
    assert ("and in both text encoders (attn)" in card) == (family == "sdxl")
    assert list((tmp_path / "first" / "samples").glob("*.png"))


def test_a_run_on_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a model of SD 1.5's layout, only smaller: its configuration is handed to the loader."""
    pipe = small_pipeline("sd1", clip_words=True)
    pipe.save_pretrained(tmp_path / "configs" / "sd1")
    for weights in (tmp_path / "configs").rglob("*.safetensors"):
        weights.unlink()
    save_file(original_layout(pipe), tmp_path / "model.safetensors")
    patched = partial(load_base, configurations=tmp_path / "configs")
    monkeypatch.setattr("dora_diffusion.training.assembly.load_base", patched)
    model = {"pretrained_model_name_or_path": str(tmp_path / "model.safetensors")}
    result = run_it(small_config(tmp_path / "run", 1, model=model))
    card = (tmp_path / "run" / "README.md").read_text()
    assert f'StableDiffusionPipeline.from_single_file("{tmp_path / "model.safetensors"}"' in card
    assert load_adapter(result.adapter).base_name == model["pretrained_model_name_or_path"]


def run_rescaled(folder: Path, rescaled: bool, prior: dict[str, Any] | None = None) -> float:
    """The loss of the first step."""
    heard = Heard()
    model = {"rescale_betas_zero_snr": True} if rescaled else {}
    config = small_config(folder, 1, model=model, adapter={"rank": 1}, prior=prior)
    run_it(config, heard)
    return float(heard.of(StepDone)[-1].loss)


def test_a_rescaled_schedule_shapes_the_loss_the_file_and_the_class_images(tmp_path: Path) -> None:
    plain = run_rescaled(tmp_path / "plain", False, small_prior(tmp_path / "class", 1))
    rescaled = run_rescaled(tmp_path / "rescaled", True, small_prior(tmp_path / "class", 1))
    assert plain != rescaled
    assert "rescale_betas_zero_snr" not in load_adapter(tmp_path / "plain").metadata
    metadata = load_adapter(tmp_path / "rescaled").metadata
    assert (metadata["prediction_type"], metadata["rescale_betas_zero_snr"]) == ("v_prediction", "true")
    # Drawn on another schedule, the class images are other pictures, and the old ones are not taken for them.
    assert len(list((tmp_path / "class").rglob("*.png"))) == 2


def test_a_rescaled_schedule_is_part_of_what_a_run_is(tmp_path: Path) -> None:
    run_rescaled(tmp_path / "run", True)
    with pytest.raises(TrainingError, match="rescale_betas_zero_snr is True there and False now"):
        run_it(small_config(tmp_path / "run", 2, adapter={"rank": 1}))


def test_a_model_that_predicts_noise_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    small_pipeline("sdxl").save_pretrained(tmp_path / "base")
    model = {"pretrained_model_name_or_path": str(tmp_path / "base"), "rescale_betas_zero_snr": True}
    with pytest.raises(ConfigError, match="cannot train a model that predicts the noise"):
        run_it(small_config(tmp_path / "run", 1, model=model))
    assert not (tmp_path / "run" / "config.yaml").exists()
