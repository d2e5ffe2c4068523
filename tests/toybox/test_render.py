"""Pictures: repeatable, in their order, with true masks, whole in the frame, and changed by what changes a toy."""

import dataclasses

import pytest
import torch

from dora_diffusion.toybox.draws import TWINS, Instances, Split, Views, draw_instances, draw_views, twins
from dora_diffusion.toybox.render import render
from dora_diffusion.toybox.words import CLASSES, SCENES, STYLES

SIZE = 48


@pytest.fixture(scope="module")
def toys() -> Instances:
    return Instances.cat([draw_instances(1, k, Split.TEST, classes=[name]) for k, name in enumerate(CLASSES)])


@pytest.fixture(scope="module")
def views(toys: Instances) -> Views:
    return draw_views(toys, 7, styles=["photo"])


def test_every_class_is_seen_whole(toys: Instances, views: Views):
    made = render(toys, views, SIZE, 1)
    assert made.images.shape == (len(CLASSES), 3, SIZE, SIZE)
    assert made.masks.shape == (len(CLASSES), 1, SIZE, SIZE)
    assert torch.isfinite(made.images).all()
    assert made.images.min() >= 0
    assert made.images.max() <= 1
    share = made.masks.mean(dim=(1, 2, 3))
    assert (share > 0.04).all(), "a toy is too small"
    assert (share < 0.75).all(), "a toy fills the picture"
    middle = made.masks[:, :, SIZE // 4 : -SIZE // 4, SIZE // 4 : -SIZE // 4].sum(dim=(1, 2, 3))
    assert (middle / made.masks.sum(dim=(1, 2, 3)) > 0.3).all(), "a toy is out of the middle"


@pytest.mark.parametrize("scene", list(SCENES))
def test_scenes_are_told_apart_from_the_studio(scene: str, toys: Instances):
    some = toys.take(slice(2))
    here = render(some, draw_views(some, 1, scenes=[scene], styles=["photo"]), SIZE, 1)
    again = render(some, draw_views(some, 1, scenes=[scene], styles=["photo"]), SIZE, 1)
    assert torch.equal(here.images, again.images)
    if scene != "studio":
        plain = render(some, draw_views(some, 1, scenes=["studio"], styles=["photo"]), SIZE, 1)
        assert (here.images - plain.images).abs().mean() > 0.05
        assert torch.equal(here.masks, plain.masks), "a scene does not move the toy"


def test_order_and_company_do_not_matter(toys: Instances, views: Views):
    rows = [5, 1, 9]
    together = render(toys.take(rows), views.take(rows), SIZE, 1)
    alone = [render(toys.take([row]), views.take([row]), SIZE, 1) for row in rows]
    assert torch.equal(together.images, torch.cat([one.images for one in alone]))


@pytest.mark.parametrize("what", TWINS)
def test_a_twin_looks_different(what: str, toys: Instances, views: Views):
    """From the front, in the studio: nine of ten twins differ by more than a tenth in more than 0.3 % of pixels."""
    front = dataclasses.replace(
        views, azimuth=torch.zeros(len(toys)), scene=torch.zeros(len(toys)).long(), blur=torch.zeros(len(toys))
    )
    here, there = (render(t, front, SIZE, 2).images for t in (toys, twins(toys, what, 3)))
    differs = ((here - there).abs().amax(1) > 0.1).float().mean(dim=(1, 2))
    assert (differs > 0.003).float().mean() >= 0.9, dict(zip(CLASSES, differs.tolist(), strict=True))


def test_styles_keep_the_mask(toys: Instances, views: Views):
    some, look = toys.take(slice(1)), views.take(slice(1))
    pictures = [
        render(some, dataclasses.replace(look, style=torch.tensor([number])), SIZE, 1) for number in range(len(STYLES))
    ]
    assert all(torch.equal(p.masks, pictures[0].masks) for p in pictures)
    for number in range(1, len(STYLES)):
        assert (pictures[number].images - pictures[0].images).abs().mean() > 0.01


def test_size_does_not_change_the_picture(toys: Instances, views: Views):
    some, look = toys.take(slice(2)), views.take(slice(2))
    small, large = render(some, look, 32, 4).images, render(some, look, 64, 2).images
    assert (torch.nn.functional.avg_pool2d(large, 2) - small).abs().mean() < 0.02


def test_an_empty_request():
    nothing = draw_instances(0, 0)
    assert render(nothing, draw_views(nothing, 0), SIZE, 1).images.shape == (0, 3, SIZE, SIZE)
