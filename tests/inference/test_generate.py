"""Pictures: seeds, batches, modes, and the settings inside the file."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from dora_diffusion.config import GenerateConfig
from dora_diffusion.errors import AdapterError, ConfigError, DataError, ModelError
from dora_diffusion.formats import WEIGHTS_NAME
from dora_diffusion.formats.diffusers_format import DIFFUSERS
from dora_diffusion.inference import Drawing, MergedPipeline, draw_tensor, generate, read_settings

FEW = {"num_inference_steps": 3, "num_images": 1}


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


@pytest.fixture
def run_folder(trained, tmp_path):
    DIFFUSERS.write(trained, tmp_path / "run" / WEIGHTS_NAME)
    return tmp_path / "run"


def test_live_and_merged_draw_the_same(run_folder, tmp_path):
    paths = {
        mode: generate(
            GenerateConfig(
                adapter=run_folder, prompt="a photo of sks teapot", mode=mode, output_dir=tmp_path / mode, **FEW
            )
        )[0]
        for mode in ("live", "merged")
    }
    assert np.abs(pixels(paths["live"]) - pixels(paths["merged"])).max() <= 1
    base = generate(GenerateConfig(prompt="a photo of sks teapot", output_dir=tmp_path / "base", **FEW))[0]
    assert np.abs(pixels(base) - pixels(paths["merged"])).mean() > 1


@pytest.mark.parametrize("mode", ["live", "merged"])
def test_strength_zero_is_the_base(run_folder, tmp_path, mode):
    zero = generate(
        GenerateConfig(
            adapter=run_folder, prompt="a photo of a mug", strength=0, mode=mode, output_dir=tmp_path / "zero", **FEW
        )
    )[0]
    base = generate(GenerateConfig(prompt="a photo of a mug", output_dir=tmp_path / "base", **FEW))[0]
    assert (pixels(zero) == pixels(base)).all()


def test_a_picture_depends_on_its_seed_not_on_its_batch(toybox):
    prompts = ["a photo of a mug on the beach"] * 3
    together = draw_tensor(toybox, prompts, [5, 6, 7], Drawing(num_inference_steps=3, sample_batch_size=3))
    alone = draw_tensor(toybox, prompts[:1], [6], Drawing(num_inference_steps=3))
    torch.testing.assert_close(together[1], alone[0], atol=1e-3, rtol=0)
    assert (together[0] - together[1]).abs().mean() > 0.01


@pytest.mark.parametrize("sampler", ["ddim", "euler", "dpmpp_2m", "unipc"])
def test_every_sampler_draws_and_leaves_the_model_its_own(toybox, sampler):
    before = type(toybox.pipe.scheduler)
    picture = draw_tensor(toybox, ["a photo of a mug"], [0], Drawing(num_inference_steps=8, sampler=sampler))
    assert torch.isfinite(picture).all()
    assert picture.std() > 0.05
    assert type(toybox.pipe.scheduler) is before


def test_more_steps_than_the_schedule_has_are_refused_and_nothing_is_written(tmp_path):
    config = GenerateConfig(prompt="a photo of a mug", num_images=1, num_inference_steps=1000, output_dir=tmp_path)
    with pytest.raises(
        ConfigError, match="1000 sampling steps do not fit .* with the sampler DDIMScheduler. Take 999;"
    ):
        generate(config)
    assert list(tmp_path.iterdir()) == []


def test_sizes_other_than_the_models_own(toybox):
    picture = draw_tensor(toybox, ["a photo of a mug"], [0], Drawing(num_inference_steps=2, height=96, width=160))
    assert picture.shape == (1, 3, 96, 160)


def test_settings_travel_in_the_file(run_folder, tmp_path):
    config = GenerateConfig(
        adapter=run_folder,
        prompt="a photo of sks teapot",
        negative_prompt="blurry",
        seed=42,
        strength=0.8,
        num_inference_steps=2,
        num_images=2,
        output_dir=tmp_path / "out",
    )
    first, second = generate(config)
    settings = read_settings(second)
    assert settings["seed"] == 43
    assert settings["prompt"] == config.prompt
    assert settings["strength"] == 0.8
    text = Image.open(first).info["parameters"]
    assert text.splitlines()[0] == config.prompt
    assert text.splitlines()[1] == "Negative prompt: blurry"
    assert "Steps: 2, Sampler: DDIMScheduler, CFG scale: 3.0, Seed: 42, Size: 128x128, Model: toybox" in text


def test_pictures_are_never_overwritten(tmp_path):
    config = GenerateConfig(prompt="a photo of a mug", output_dir=tmp_path / "out", **FEW)
    names = [path.name for _ in range(3) for path in generate(config)]
    assert names == ["00000.png", "00001.png", "00002.png"]


def test_a_foreign_picture_has_no_settings(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    with pytest.raises(DataError, match="no settings"):
        read_settings(tmp_path / "plain.png")


def test_a_merged_pipeline_switches_between_folder_and_base(run_folder):
    pipeline = MergedPipeline("toybox", device="cpu")
    base = np.asarray(pipeline.draw(prompt="a photo of sks teapot", num_inference_steps=2)[0])
    assert pipeline.switch(run_folder) > 0
    with_subject = np.asarray(pipeline.draw(prompt="a photo of sks teapot", num_inference_steps=2)[0])
    assert (base != with_subject).any()
    pipeline.switch(None)
    assert (np.asarray(pipeline.draw(prompt="a photo of sks teapot", num_inference_steps=2)[0]) == base).all()


def test_without_a_prompt_the_one_of_the_training_is_drawn(run_folder, tmp_path):
    (path,) = generate(GenerateConfig(adapter=run_folder, output_dir=tmp_path / "out", **FEW))
    assert read_settings(path)["prompt"] == "a photo of sks teapot"
    with pytest.raises(ConfigError, match="--prompt"):
        generate(GenerateConfig(output_dir=tmp_path / "out", **FEW))


@pytest.mark.parametrize("placeholder", ["{trigger}", "{class}"])
def test_a_placeholder_of_a_training_is_refused_with_what_was_taught(run_folder, tmp_path, placeholder):
    prompt = f"a photo of {placeholder} in the snow"
    with pytest.raises(ConfigError, match=r"write the words themselves. The adapter was taught with 'a photo of sks"):
        generate(GenerateConfig(adapter=run_folder, prompt=prompt, output_dir=tmp_path / "out", **FEW))
    assert not list(tmp_path.glob("out/*"))


def test_what_is_drawn_is_kept_when_the_rest_is_interrupted(tmp_path):
    def interrupt(done, total):
        assert total == 3 * FEW["num_inference_steps"]
        if done > 2 * FEW["num_inference_steps"]:
            raise KeyboardInterrupt

    settings = {**FEW, "num_images": 3, "sample_batch_size": 1}
    with pytest.raises(KeyboardInterrupt):
        generate(GenerateConfig(prompt="a photo of a mug", output_dir=tmp_path / "out", **settings), interrupt)
    assert [path.name for path in sorted((tmp_path / "out").glob("*.png"))] == ["00000.png", "00001.png"]


def test_the_base_says_how_strictly_a_prompt_is_followed(toybox) -> None:
    """toybox's own guidance where none is given, another base's where it has another name."""
    prompts = ["a photo of a red mug on the beach"]

    def picture(guidance: float | None) -> torch.Tensor:
        return draw_tensor(toybox, prompts, [1], Drawing(num_inference_steps=2, guidance_scale=guidance))

    assert torch.equal(picture(None), picture(3.0)) and not torch.equal(picture(None), picture(5.0))
    toybox.name = "owner/model"
    assert torch.equal(picture(None), picture(5.0))


def test_a_base_that_nobody_named_is_told(run_folder, tmp_path, caplog):
    """Files of other tools do not say what they were trained on: what is taken then is a guess."""
    tensors = load_file(run_folder / WEIGHTS_NAME)
    save_file(tensors, tmp_path / "foreign.safetensors")
    told = "does not say which base it was trained on, so that toybox, the embedded one, is taken"
    quick = {"prompt": "a mug", "num_images": 1, "num_inference_steps": 1, "output_dir": tmp_path / "out"}
    generate(GenerateConfig(adapter=run_folder, **quick))
    generate(GenerateConfig(adapter=tmp_path / "foreign.safetensors", pretrained_model_name_or_path="toybox", **quick))
    generate(GenerateConfig(**quick))
    assert told not in caplog.text
    generate(GenerateConfig(adapter=tmp_path / "foreign.safetensors", **quick))
    assert caplog.text.count(told) == 1


def test_a_guessed_base_that_does_not_fit_is_refused(tmp_path, caplog):
    layer = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    factors = {f"{layer}.lora_A.weight": torch.ones(4, 320), f"{layer}.lora_B.weight": torch.ones(320, 4)}
    save_file(factors, tmp_path / "sd15.safetensors")
    with pytest.raises(AdapterError, match="does not fit this base.* Give the base .* with --pretrained_model_name"):
        generate(GenerateConfig(adapter=tmp_path / "sd15.safetensors", prompt="a mug", output_dir=tmp_path))
    assert "so that toybox" in caplog.text


def test_a_base_by_a_name_that_only_its_trainer_knows_is_asked_for(run_folder, tmp_path):
    header = {"ss_sd_model_name": "dreams_v5.safetensors"}
    save_file(load_file(run_folder / WEIGHTS_NAME), tmp_path / "foreign.safetensors", header)
    with pytest.raises(ModelError, match="dreams_v5.safetensors is neither .* give the base with --pretrained_model_n"):
        generate(GenerateConfig(adapter=tmp_path / "foreign.safetensors", prompt="a mug", output_dir=tmp_path))
