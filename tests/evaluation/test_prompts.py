"""What is asked for: scenes, seeds and words."""

import pytest

from dora_diffusion.errors import DataError
from dora_diffusion.evaluation.prompts import (
    PROMPT_SCENES,
    SPARE_SCENES,
    plan,
    prompt_scenes,
)
from dora_diffusion.toybox.words import CLASSES, REFERENCE_SCENES, SCENES, STYLES, vocabulary

ASKED = plan(
    "sks mug", "mug", "orange and blue striped mug", num_images=3, num_style_images=2, num_drift_images=2, seed=7
)


def test_no_prompt_names_a_scene_of_the_photos() -> None:
    assert not set(PROMPT_SCENES) & set(REFERENCE_SCENES)
    assert {*PROMPT_SCENES, *REFERENCE_SCENES, *SPARE_SCENES} == set(SCENES)
    for asks in vars(ASKED).values():
        assert {ask.scene for ask in asks} == set(PROMPT_SCENES)


def test_twenty_four_pictures_with_seeds_of_their_own() -> None:
    assert len(ASKED.subject) == 24
    assert [ask.seed for ask in ASKED.subject] == list(range(7, 31))


def test_subject_bare_and_worded_are_paired() -> None:
    keys = [[(ask.seed, ask.scene, ask.kind, ask.style) for ask in asks] for asks in (ASKED.subject, ASKED.bare)]
    assert keys[0] == keys[1] == [(ask.seed, ask.scene, ask.kind, ask.style) for ask in ASKED.worded]


def test_the_words() -> None:
    assert ASKED.subject[0].prompt == "a photo of sks mug on the beach"
    assert ASKED.bare[0].prompt == "a photo of a mug on the beach"
    assert ASKED.worded[0].prompt == "a photo of an orange and blue striped mug on the beach"
    assert {ask.prompt for ask in ASKED.styled if ask.scene == "moon"} == {
        "a pencil sketch of sks mug on the moon",
        "pixel art of sks mug on the moon",
        "a watercolor painting of sks mug on the moon",
    }


def test_every_style_but_photo_in_every_scene() -> None:
    assert len(ASKED.styled) == 3 * 8 * 2
    assert {ask.style for ask in ASKED.styled} == set(STYLES) - {"photo"}
    assert len({ask.seed for ask in ASKED.styled}) == len(ASKED.styled)


def test_every_other_class_and_never_its_own() -> None:
    assert sorted(ask.kind for ask in ASKED.others) == sorted(2 * [name for name in CLASSES if name != "mug"])
    assert all(f" {ask.kind} " in ask.prompt for ask in ASKED.others)


def test_every_word_is_one_the_base_knows() -> None:
    words = {word for asks in vars(ASKED).values() for ask in asks for word in ask.prompt.split()}
    assert words <= set(vocabulary())


def test_without_a_description_there_is_no_second_floor() -> None:
    assert plan("sks mug", "mug").worded == ()
    assert plan("sks mug", "mug", num_drift_images=0).others == ()


def test_scenes_that_the_photos_show_are_left_out() -> None:
    assert prompt_scenes(set(REFERENCE_SCENES)) == PROMPT_SCENES
    scenes = prompt_scenes({"beach", "moon"})
    assert len(scenes) == 8 and not {"beach", "moon"} & set(scenes) and set(SPARE_SCENES) & set(scenes)
    with pytest.raises(DataError, match="show every scene"):
        prompt_scenes(set(SCENES))
