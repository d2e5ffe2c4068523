"""What is said once, before the first step, about settings that are allowed and probably not meant."""

from pathlib import Path

import pytest
from PIL import Image
from training_runs import Heard, run_it, small_config, small_prior

from dora_diffusion.config import DataConfig, RunConfig, TrainConfig
from dora_diffusion.errors import ConfigError
from dora_diffusion.inference.picture import read_settings
from dora_diffusion.models import BaseModel, load_base
from dora_diffusion.training import preview
from dora_diffusion.training.events import ClassImages, Note, RunStarted
from dora_diffusion.training.preview import validation_prompts
from dora_diffusion.training.remarks import remarks


@pytest.fixture(scope="module")
def base() -> BaseModel:
    return load_base("toybox")


def config(prompts: list[str], **data: str) -> TrainConfig:
    return TrainConfig(data=DataConfig(**{"class_noun": "dog", **data}), run=RunConfig(validation_prompt=prompts))


def test_trigger_and_class_are_written_out() -> None:
    prompts = ["{trigger} {class} on a beach", "a {trigger}", "plain {other}"]
    assert validation_prompts(config(prompts, trigger="zwx")) == ["zwx dog on a beach", "a zwx", "plain {other}"]


def test_a_class_that_nobody_named() -> None:
    settings = config(["a {class}"], class_noun="", instance_prompt="sks")
    with pytest.raises(ConfigError, match=r"The validation prompt 'a \{class\}' needs --class_noun"):
        validation_prompts(settings)


def test_a_missing_class_is_told_before_anything_is_written(tmp_path: Path) -> None:
    data = {"class_noun": None, "instance_prompt": "sks"}
    with pytest.raises(ConfigError, match="needs --class_noun"):
        run_it(small_config(tmp_path / "run", data=data, run={"validation_prompt": ["a {class}"]}))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("a photo of a dog", True),
        ("a photo of asks dog", True),
        ("a photo of sks dog", False),
        ("A photo of SKS, in a bucket", False),
        ("{trigger} {class}", False),
    ],
)
def test_a_prompt_without_the_trigger(base: BaseModel, prompt: str, said: bool) -> None:
    expected = [f"The validation prompt {prompt!r} has no 'sks': its previews show what the base makes of it."]
    assert list(remarks(config([prompt]), base)) == (expected if said else [])


def test_nothing_is_said_where_the_instance_prompt_has_no_trigger_either(base: BaseModel) -> None:
    assert list(remarks(config(["a zwx dog"], instance_prompt="a photo of zwx dog"), base)) == []


def test_a_preset_for_another_family(base: BaseModel) -> None:
    (told,) = remarks(TrainConfig(preset="sdxl-pet-12gb", data=DataConfig(class_noun="dog")), base)
    assert told == "The preset sdxl-pet-12gb is for bases of the family sdxl; toybox is sd1."
    for preset in ("sd15-pet-12gb", "toybox-quick"):
        assert list(remarks(TrainConfig(preset=preset, data=DataConfig(class_noun="dog")), base)) == []


def test_a_repository_without_an_upload(base: BaseModel) -> None:
    settings = TrainConfig(data=DataConfig(class_noun="dog"), run=RunConfig(hub_model_id="me/dog"))
    assert list(remarks(settings, base)) == ["hub_model_id has no effect without --push_to_hub: nothing is uploaded."]


def test_remarks_come_before_the_first_step_and_prompts_are_drawn_as_written_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preview, "PREVIEW", preview.Drawing(num_inference_steps=1, height=64, width=64))
    heard, prompts = Heard(), ["a {class}", "{trigger} {class} on a beach"]
    how = {"validation_prompt": prompts, "num_validation_images": 1}
    run_it(small_config(tmp_path / "run", 1, adapter={"rank": 1}, run=how), heard)
    assert isinstance(heard[0], Note) and "'a teapot' has no 'sks'" in heard[0].message
    assert isinstance(heard[1], RunStarted)
    drawn = sorted((tmp_path / "run" / "samples").iterdir())
    assert [read_settings(path)["prompt"] for path in drawn] == ["a teapot", "sks teapot on a beach"]
    assert Image.open(drawn[0]).tobytes() != Image.open(drawn[1]).tobytes()


@pytest.mark.parametrize(("resolution", "told"), [(None, False), (64, False), (256, False), (264, True), (56, True)])
def test_a_resolution_far_from_the_bases_own(
    resolution: int | None, told: bool, base: BaseModel, tmp_path: Path
) -> None:
    found = list(remarks(small_config(tmp_path / "run", data={"resolution": resolution}), base))
    expected = f"The resolution {resolution} is far from the 128 pixels that toybox was trained on."
    assert found == ([expected] if told else [])


def test_a_preset_of_another_family_is_told_before_class_images_are_drawn(tmp_path: Path) -> None:
    heard = Heard()
    settings = small_config(tmp_path / "run", 1, prior=small_prior(tmp_path / "class"))
    run_it(settings.model_copy(update={"preset": "sdxl-person-12gb"}), heard)
    kinds = [type(event) for event in heard]
    (mismatch,) = [
        k for k, e in enumerate(heard) if isinstance(e, Note) and "is for bases of the family sdxl" in e.message
    ]
    assert mismatch < kinds.index(ClassImages)


def test_a_plan_says_for_which_base(tmp_path: Path) -> None:
    heard = Heard()
    run_it(small_config(tmp_path / "run", 3, run={"plan_only": True}), heard)
    assert [note.message for note in heard.of(Note)][-1] == "The plan is for toybox (sd1)."


def test_photos_that_hurt_are_told_once_with_where_to_look(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(3):
        Image.new("RGB", (40, 40), (30 * number, 0, 0)).save(photos / f"{number}.png")
    heard = Heard()
    run_it(small_config(tmp_path / "run", 1, data={"instance_data_dir": photos}), heard)
    told = [note.message for note in heard.of(Note) if "doctor" in note.message]
    assert len(told) == 1 and "0.png" in told[0] and f"dora-diffusion doctor --instance_data_dir {photos}" in told[0]
    heard = Heard()
    run_it(small_config(tmp_path / "sound", 1), heard)
    assert not [note for note in heard.of(Note) if "doctor" in note.message]
