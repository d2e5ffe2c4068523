"""What the eye reads becomes numbers in the right place."""

import json
import math

import pytest
import torch
from painted import ReadingEye, picture, pictures
from torch import Tensor

from dora_diffusion.errors import DataError
from dora_diffusion.evaluation.measure import AMONG_THEMSELVES, GROUPS, HELD_OUT, Measured, measure
from dora_diffusion.evaluation.prompts import Plan, plan

ASKED = plan("sks mug", "mug", "red mug", num_images=1, num_style_images=1, num_drift_images=1)
PHOTOS = pictures(picture(), picture(degrees=60))


def obedient(asked: Plan) -> dict[str, Tensor]:
    """Every picture as it was asked for."""
    return {
        group: pictures(*(picture(ask.kind, ask.scene, ask.style) for ask in getattr(asked, name)))
        for group, (name, _) in GROUPS.items()
        if getattr(asked, name)
    }


def look(drawn: dict[str, Tensor], held_out: Tensor | None = None, photos: Tensor = PHOTOS) -> Measured:
    return measure(drawn, ASKED, photos, held_out, ReadingEye(), gate=0.5)


def test_what_is_drawn_as_asked_is_all_right() -> None:
    found = look(obedient(ASKED))
    assert found.groups.keys() == set(GROUPS)
    for group in found.groups.values():
        assert all(group.class_right) and all(group.scene_right) and all(group.style_right)
    assert found.groups["subject"].cosine == pytest.approx([0.75] * 8, abs=1e-6)
    assert found.groups["subject"].probability == pytest.approx([0.999] * 8, abs=1e-3)


def test_a_fault_is_found_where_it_is() -> None:
    drawn = obedient(ASKED)
    drawn["subject"][2] = picture("duck", ASKED.subject[2].scene)
    drawn["bare"][3] = picture("mug", "library")
    drawn["styled"][4] = picture("mug", ASKED.styled[4].scene, "photo")
    found = look(drawn).groups
    assert [k for k, right in enumerate(found["subject"].class_right) if not right] == [2]
    assert found["subject"].probability[2] < 0.01
    assert [k for k, right in enumerate(found["bare"].scene_right) if not right] == [3]
    assert [k for k, right in enumerate(found["styled"].style_right) if not right] == [4]


def test_nothing_is_no_class() -> None:
    drawn = obedient(ASKED)
    drawn["subject"][0] = picture("", ASKED.subject[0].scene)
    assert look(drawn).groups["subject"].class_right[0] is False


def test_held_out_photos_are_the_ceiling_where_there_are_some() -> None:
    found = look(obedient(ASKED), pictures(picture(degrees=30)))
    assert found.ceiling_of == HELD_OUT and found.ceiling == pytest.approx([math.cos(math.pi / 6)], abs=1e-5)
    found = look(obedient(ASKED))
    assert found.ceiling_of == AMONG_THEMSELVES and found.ceiling == pytest.approx([0.5, 0.5], abs=1e-5)
    with pytest.raises(DataError, match="there is 1"):
        look(obedient(ASKED), photos=PHOTOS[:1])


def test_training_photos_pass_the_gate_or_not() -> None:
    found = look(obedient(ASKED), photos=pictures(picture(), picture(sure=0.3), picture("duck")))
    assert found.photos_accepted == [True, False, False]


def test_a_copy_of_a_photo_is_scored_as_one() -> None:
    generator = torch.Generator().manual_seed(0)
    photos = torch.rand(2, 3, 64, 64, generator=generator)
    drawn = obedient(ASKED)
    drawn["subject"] = torch.rand(8, 3, 64, 64, generator=generator)
    drawn["subject"][5] = photos[1]
    scores = look(drawn, photos=photos).copies
    assert scores[5] > 0.99 and max(scores[:5] + scores[6:]) < 0.5


def test_groups_that_were_not_asked_for_are_missing() -> None:
    asked = plan("sks mug", "mug", num_images=1, num_drift_images=0)
    found = measure(obedient(asked), asked, PHOTOS, None, ReadingEye(), 0.5)
    assert found.groups.keys() == {"subject", "bare", "styled", "base_bare"}


def test_as_many_pictures_as_were_asked_for() -> None:
    drawn = obedient(ASKED)
    drawn["bare"] = drawn["bare"][:-1]
    with pytest.raises(ValueError, match="7 pictures were drawn and 8 asked for"):
        look(drawn)


def test_through_json_and_back() -> None:
    found = look(obedient(ASKED))
    assert Measured.from_json(json.loads(json.dumps(found.to_json()))) == found
