"""Commands of diffusers' DreamBooth READMEs and of diffusers' own tests, script name and model changed.

Every one parses, or is refused by the name of the flag that cannot be. Those of the SD 1.5 tests are run too, on the
embedded base, and what diffusers asserts about files and keys is asserted here.
"""

import shlex
from pathlib import Path
from typing import Any

import pytest
from diffusers import StableDiffusionPipeline
from fake_hub import FakeHub

from dora_diffusion.cli import main
from dora_diffusion.cli.train import parse_command
from dora_diffusion.config import TrainConfig
from dora_diffusion.config.fields import walk
from dora_diffusion.errors import ConfigError
from dora_diffusion.formats import WEIGHTS_NAME, read_safetensors
from dora_diffusion.models.load import resolve
from dora_diffusion.training import preview

PHOTOS = Path(__file__).parents[2] / "samples" / "subjects" / "teapot"
Capture = pytest.CaptureFixture[str]

# ------------------------------------------------------------------------------------------------------ README.md
README_SD = """
--pretrained_model_name_or_path=runwayml/stable-diffusion-v1-5 --instance_data_dir={photos} --output_dir={out}
--instance_prompt="a photo of sks dog" --resolution=512 --train_batch_size=1 --gradient_accumulation_steps=1
--checkpointing_steps=100 --learning_rate=1e-4 --report_to="wandb" --lr_scheduler="constant" --lr_warmup_steps=0
--max_train_steps=500 --validation_prompt="A photo of sks dog in a bucket" --validation_epochs=50 --seed="0"
--push_to_hub
"""

# ------------------------------------------------------------------------------------------------- README_sdxl.md
README_SDXL = """
--pretrained_model_name_or_path=stabilityai/stable-diffusion-xl-base-1.0 --instance_data_dir={photos}
--pretrained_vae_model_name_or_path=madebyollin/sdxl-vae-fp16-fix --output_dir={out} --mixed_precision="fp16"
--instance_prompt="a photo of sks dog" --resolution=1024 --train_batch_size=1 --gradient_accumulation_steps=4
--learning_rate=1e-4 --report_to="wandb" --lr_scheduler="constant" --lr_warmup_steps=0 --max_train_steps=500
--validation_prompt="A photo of sks dog in a bucket" --validation_epochs=25 --seed="0" --push_to_hub
"""
README_SDXL_SMALL = "--enable_xformers_memory_efficient_attention --gradient_checkpointing --use_8bit_adam"
README_EDM = """
--pretrained_model_name_or_path="playgroundai/playground-v2.5-1024px-aesthetic" --instance_data_dir={photos}
--output_dir={out} --mixed_precision="fp16" --instance_prompt="a photo of sks dog" --resolution=1024
--train_batch_size=1 --gradient_accumulation_steps=4 --learning_rate=1e-4 --use_8bit_adam --report_to="wandb"
--lr_scheduler="constant" --lr_warmup_steps=0 --max_train_steps=500
--validation_prompt="A photo of sks dog in a bucket" --validation_epochs=25 --seed="0" --push_to_hub
"""

# ------------------------------------------------------------- test_dreambooth_lora.py: class DreamBoothLoRA, SD 1.5
PLAIN = """
--pretrained_model_name_or_path {model} --instance_data_dir {photos} --instance_prompt photo --resolution 64
--train_batch_size 1 --gradient_accumulation_steps 1 --max_train_steps 2 --learning_rate 5.0e-04 --scale_lr
--lr_scheduler constant --lr_warmup_steps 0 --output_dir {out}
"""
CHECKPOINTS = """
--pretrained_model_name_or_path={model} --instance_data_dir={photos} --output_dir={out} --instance_prompt=prompt
--resolution=64 --train_batch_size=1 --gradient_accumulation_steps=1 --checkpointing_steps=2
"""
IF_MODEL = f"{PLAIN} --pre_compute_text_embeddings --tokenizer_max_length=77 --text_encoder_use_attention_mask"

# --------------------------------------------------------- test_dreambooth_lora.py: class DreamBoothLoRASDXL
SDXL = {
    "plain": PLAIN,
    "text encoder": f"{PLAIN} --train_text_encoder",
    "checkpoints": f"{PLAIN} --max_train_steps 6 --checkpointing_steps=2 --checkpoints_total_limit=2",
    "text encoder, checkpoints": f"{PLAIN} --max_train_steps 7 --checkpointing_steps=2 --checkpoints_total_limit=2 "
    "--train_text_encoder",
}
CAPTIONS = PLAIN.replace("--instance_data_dir {photos}", "--dataset_name {photos} --caption_column text")
SNR = f"{PLAIN} --train_batch_size 2 --snr_gamma 5.0 --with_prior_preservation --class_data_dir {{photos}} "
SNR += "--class_prompt photo"


def arguments(command: str, out: Path = Path("out"), model: object = "toybox") -> list[str]:
    """The words of a command; a later flag wins over an earlier one, as in the scripts."""
    return shlex.split(command.format(model=model, photos=PHOTOS, out=out))


def known(command: str) -> str:
    """The command without the flags that other parts of this program still have to bring."""
    words = arguments(command)
    for flag in ("--snr_gamma", "--caption_column"):
        if flag.removeprefix("--") not in {name.rpartition(".")[2] for name, _ in walk(TrainConfig)}:
            words = [
                word
                for before, word in zip(["", *words], words, strict=False)
                if word.partition("=")[0] != flag and before != flag
            ]
    return shlex.join(words)


# ------------------------------------------------------------------------------------------------------- parsing
def test_the_sd_command_of_the_readme_parses() -> None:
    config, notes = parse_command(arguments(README_SD))
    assert config.model.pretrained_model_name_or_path == "runwayml/stable-diffusion-v1-5"
    assert config.data.prompt() == "a photo of sks dog" and config.data.resolution == 512
    assert (config.optim.learning_rate, config.optim.lr_scheduler, config.optim.lr_warmup_steps) == (
        1e-4,
        "constant",
        0,
    )
    assert (config.run.max_train_steps, config.run.checkpointing_steps, config.run.seed) == (500, 100, 0)
    assert config.run.validation_prompt == ["A photo of sks dog in a bucket"]
    assert config.run.validation_steps == 50 * 5  # five photos, a step each
    assert config.run.report_to == "wandb" and config.run.push_to_hub
    assert "kind dora (there lora); rank 16 (there 4)" in notes[-1]


def test_the_sdxl_command_of_the_readme_parses() -> None:
    config, notes = parse_command(arguments(README_SDXL))
    assert (config.run.mixed_precision, config.run.gradient_accumulation_steps) == ("fp16", 4)
    assert config.run.validation_steps == 25 * 2  # five photos, four of them a step
    assert config.data.resolution == 1024 and "SDXL" in notes[-1]
    assert config.model.pretrained_vae_model_name_or_path == "madebyollin/sdxl-vae-fp16-fix"


def test_the_flags_for_small_gpus_parse() -> None:
    small = README_SDXL_SMALL.replace("--use_8bit_adam", "")  # test_diffusers_flags.py has this one
    config, _ = parse_command(arguments(f"{README_SDXL} {small}"))
    assert config.model.attention == "xformers" and config.run.gradient_checkpointing


def test_the_edm_command_is_refused_by_the_flag() -> None:
    with pytest.raises(ConfigError, match="--do_edm_style_training: models of the EDM formulation"):
        parse_command(arguments(f"{README_EDM.replace('--use_8bit_adam', '')} --do_edm_style_training"))


@pytest.mark.parametrize("name", SDXL)
def test_the_commands_of_the_sdxl_tests_parse(name: str) -> None:
    config, _ = parse_command(arguments(SDXL[name]))
    assert config.data.instance_data_dir == PHOTOS and config.optim.learning_rate == 5e-4
    assert config.adapter.train_text_encoder == ("text encoder" in name)
    assert config.run.max_train_steps == {"plain": 2, "text encoder": 2, "checkpoints": 6}.get(name, 7)


@pytest.mark.parametrize("more", ["", "--train_text_encoder"])
def test_the_commands_with_captions_parse(more: str) -> None:
    assert parse_command(arguments(f"{known(CAPTIONS)} {more}"))[0].data.instance_data_dir == PHOTOS
    on_the_hub = arguments(known(CAPTIONS).replace(str(PHOTOS), "hf-internal-testing/dummy_image_text_data"))
    with pytest.raises(ConfigError, match="hf download --repo-type dataset hf-internal-testing/dummy_image_text_data"):
        parse_command(on_the_hub)


def test_the_command_with_snr_and_prior_parses() -> None:
    config, notes = parse_command(arguments(known(SNR)))
    assert config.prior.with_prior_preservation and config.class_prompt() == "photo"
    assert config.optim.learning_rate == 1e-3 and "--scale_lr" in notes[0]  # two photos a step


def test_the_if_command_is_refused_by_the_flag(capsys: Capture) -> None:
    assert main(["train", *arguments(IF_MODEL)]) == 2
    assert "--tokenizer_max_length: this is for DeepFloyd IF" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------- running
@pytest.fixture(scope="module")
def model() -> str:
    """A folder in diffusers' layout, as a user of the scripts names one."""
    return str(resolve("toybox"))


def checkpoints(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if "checkpoint" in path.name}


@pytest.mark.parametrize("kind", [[], ["--use_lora"]], ids=["dora", "lora"])
@pytest.mark.parametrize("more", ["", "--train_text_encoder"])
def test_a_run_of_two_steps(tmp_path: Path, model: str, more: str, kind: list[str], capsys: Capture) -> None:
    assert main(["train", *arguments(f"{PLAIN} {more}", tmp_path, model), *kind]) == 0
    assert ("kind dora (there lora)" in capsys.readouterr().err) == (not kind)
    keys = read_safetensors(tmp_path / WEIGHTS_NAME)[0].keys()
    # DoRA's magnitudes hold "lora" in their names too: lora_magnitude_vector.
    assert keys and all("lora" in key for key in keys)
    assert any("magnitude" in key for key in keys) == (not kind)
    assert {key.partition(".")[0] for key in keys} == {"unet", *(["text_encoder"] if more else [])}


def test_two_checkpoints_are_kept(tmp_path: Path, model: str) -> None:
    command = f"{CHECKPOINTS} --max_train_steps=6 --checkpoints_total_limit=2"
    assert main(["train", *arguments(command, tmp_path, model)]) == 0
    assert checkpoints(tmp_path) == {"checkpoint-4", "checkpoint-6"}


def test_several_checkpoints_are_removed_after_a_resume(tmp_path: Path, model: str) -> None:
    assert main(["train", *arguments(f"{CHECKPOINTS} --max_train_steps=4", tmp_path, model)]) == 0
    assert checkpoints(tmp_path) == {"checkpoint-2", "checkpoint-4"}
    more = "--max_train_steps=8 --resume_from_checkpoint=checkpoint-4 --checkpoints_total_limit=2"
    assert main(["train", *arguments(f"{CHECKPOINTS} {more}", tmp_path, model)]) == 0
    assert checkpoints(tmp_path) == {"checkpoint-6", "checkpoint-8"}


def test_the_sd_command_of_the_readme_runs(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Shortened to two steps of small pictures, with another tracker and a hub that is not there."""
    hub = FakeHub()
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: hub)
    monkeypatch.setattr(preview, "PREVIEW", preview.Drawing(num_inference_steps=1, height=64, width=64))
    short = [*arguments(README_SD, tmp_path / "dog"), "--pretrained_model_name_or_path", model]
    short += ["--resolution=64", "--max_train_steps=2", "--report_to=tensorboard", "--checkpointing_steps=1"]
    assert main(["train", *short]) == 0
    assert hub.repository == "me/dog" and {WEIGHTS_NAME, "README.md"} < hub.uploaded.keys()
    assert sum(name.startswith("samples/") for name in hub.uploaded) == 4  # the default of num_validation_images
    assert checkpoints(tmp_path / "dog") == {"checkpoint-1", "checkpoint-2"}
    assert list((tmp_path / "dog" / "logs").rglob("events.out.tfevents.*"))
    assert "Uploaded to me/dog on the hub." in capsys.readouterr().err


def test_diffusers_loads_and_draws_with_the_result(tmp_path: Path, model: str) -> None:
    """As the SDXL tests do: ``load_lora_weights`` of the folder, then a picture."""
    assert main(["train", *arguments(f"{PLAIN} --train_text_encoder", tmp_path, model)]) == 0
    pipe: Any = StableDiffusionPipeline.from_pretrained(model)
    pipe.set_progress_bar_config(disable=True)
    pipe.load_lora_weights(str(tmp_path))
    assert pipe("a prompt", num_inference_steps=1, height=64, width=64).images[0].size == (64, 64)
