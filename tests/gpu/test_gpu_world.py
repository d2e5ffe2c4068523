"""The renderer on a GPU: kernels equal the plain functions, pictures equal the CPU's."""

import pytest
import torch

from dora_diffusion.toybox import field
from dora_diffusion.toybox.draws import draw_instances, draw_views
from dora_diffusion.toybox.paint import build
from dora_diffusion.toybox.render import render

pytestmark = pytest.mark.gpu


def test_kernels_equal_the_plain_functions():
    from dora_diffusion.toybox import kernels

    table = build(draw_instances(40, 1), "cuda").fields
    x, y, z = (torch.rand(3, 40, 5000, generator=torch.Generator().manual_seed(0)) * 2 - 1).cuda().unbind(0)
    assert torch.allclose(kernels.distance(x, y, z, table), field.distance(x, y, z, table), atol=1e-5)
    which, *local = kernels.nearest_part(x, y, z, table)
    expected, *exact = field.nearest_part(x, y, z, table)
    same = which == expected
    assert same.float().mean() > 0.999
    assert all(torch.allclose(a[same], b[same], atol=1e-4) for a, b in zip(local, exact, strict=True))
    light = tuple(torch.full((40, 1), v).cuda() for v in (0.48, 0.64, 0.6))
    assert torch.allclose(
        kernels.shadow((x, y, z), light, table, 12), field.shadow((x, y, z), light, table, 12), atol=1e-3
    )


def test_pictures_equal_the_cpus():
    toys = draw_instances(64, 2)
    views = draw_views(toys, 3)
    here, there = render(toys, views), render(toys, views, device="cuda")
    apart = (here.images - there.images.cpu()).abs().amax(1)
    assert (apart <= 2 / 255).float().mean() >= 0.995
