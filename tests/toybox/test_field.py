"""Distances against closed forms."""

import math

import pytest
import torch
from torch import Tensor

from dora_diffusion.toybox import field
from dora_diffusion.toybox.parts import MAX_PARTS, NO_LIMIT, Parts, Role, stretched


def one(**_: object) -> Parts:
    return Parts(1)


def points(count: int = 500, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    x, y, z = (torch.rand(3, 1, count, generator=torch.Generator().manual_seed(seed)) * 3 - 1.5).unbind(0)
    return x, y, z


def test_ball():
    parts = one()
    parts.ball((0.1, 0.5, -0.2), 0.3, role=Role.MAIN)
    x, y, z = points()
    exact = torch.sqrt((x - 0.1) ** 2 + (y - 0.5) ** 2 + (z + 0.2) ** 2) - 0.3
    assert torch.allclose(field.distance(x, y, z, parts.table().fields), exact, atol=1e-5)


def test_turned_box():
    parts = one()
    parts.box((0, 0.5, 0), 0.4, 0.2, 0.3, role=Role.MAIN, edge=0.001, turn=(0, 90, 0))
    x, y, z = points()
    q = torch.stack([x.abs() - 0.3, (y - 0.5).abs() - 0.2, z.abs() - 0.4])  # the turn swaps width and depth
    exact = q.clamp(min=0).norm(dim=0) + q.amax(0).clamp(max=0)
    assert torch.allclose(field.distance(x, y, z, parts.table().fields), exact, atol=2e-3)


def test_ring():
    parts = one()
    parts.ring((0, 0, 0), 0.5, 0.1, role=Role.MAIN)
    x, y, z = points()
    exact = torch.hypot(torch.hypot(x, z) - 0.5, y) - 0.1
    got = field.distance(x, y, z, parts.table().fields)
    outside = exact > 0
    assert torch.allclose(got[outside], exact[outside], atol=0.02)
    assert ((got < 0) == (exact < 0)).float().mean() > 0.99


def test_mirrored_and_absent_parts():
    parts = Parts(2)
    there = torch.tensor([True, False])
    parts.ball((0.5, 0.5, 0), 0.1, role=Role.MAIN, mirror_x=True)
    parts.ball((0, 0.5, 0.5), 0.1, role=Role.SECOND, mirror_z=True, present=there)
    at = [torch.tensor(v).expand(2, -1) for v in ([-0.5, 0.5, 0.0, 0.0], [0.5] * 4, [0.0, 0.0, 0.5, -0.5])]
    inside = field.distance(*at, parts.table().fields) < 0
    assert inside.tolist() == [[True] * 4, [True, True, False, False]]


def test_melting_only_adds_where_both_blend():
    def pair(blend: float) -> Tensor:
        parts = one()
        parts.ball((-0.2, 0.5, 0), 0.2, role=Role.MAIN, blend=0.1)
        parts.ball((0.2, 0.5, 0), 0.2, role=Role.MAIN, blend=blend)
        return field.distance(torch.zeros(1, 1), torch.tensor([[0.55]]), torch.zeros(1, 1), parts.table().fields)

    hard = math.hypot(0.2, 0.05) - 0.2
    assert pair(0.0).item() == pytest.approx(hard, abs=1e-4)
    assert pair(0.1).item() == pytest.approx(hard - 0.1 / 4, abs=1e-3)


def test_stretching_moves_the_surface_and_stays_a_lower_bound():
    parts = one()
    parts.ball((0, 0.5, 0), 0.3, role=Role.MAIN)
    wide = stretched(parts.table(), torch.tensor([[1.2, 0.9, 1.0]])).fields
    x, y, z = points()
    got = field.distance(x, y, z, wide)
    surface = (x / 1.2) ** 2 + (y / 0.9 - 0.5) ** 2 + z**2
    assert ((got < 0) == (surface < 0.09)).all()
    true = torch.sqrt(x**2 + (y - 0.45) ** 2 + z**2)  # no point of the surface is farther than this plus its radius
    assert (got <= true + 0.36).all()


def test_a_march_ends_on_the_surface_or_past_the_end():
    parts = one()
    parts.ball((0, 0.5, 0), 0.3, role=Role.MAIN)
    origin = (torch.zeros(1, 1), torch.full((1, 1), 0.5), torch.full((1, 1), 2.0))
    aim = torch.linspace(-0.3, 0.3, 41)[None]
    direction = (aim, torch.zeros_like(aim), -torch.sqrt(1 - aim**2))
    length = field.march(torch.ones_like(aim), torch.full_like(aim, 3.0), origin, direction, parts.table().fields, 60)
    closest = 2.0 * aim.abs()
    exact = 2.0 * torch.sqrt(1 - aim**2) - torch.sqrt((0.09 - closest**2).clamp(min=0))
    hit = closest < 0.28
    assert torch.allclose(length[hit], exact[hit], atol=4e-3)
    assert (length[closest > 0.302] >= 3.0).all()


def test_shadow_under_a_ball():
    parts = one()
    parts.ball((0, 0.5, 0), 0.2, role=Role.MAIN)
    at = (torch.tensor([[0.0, 1.0]]), torch.zeros(1, 2), torch.zeros(1, 2))
    up = (torch.zeros(1, 1), torch.ones(1, 1), torch.zeros(1, 1))
    assert field.shadow(at, up, parts.table().fields, 20).tolist() == [[0.0, 1.0]]


def test_padding_and_the_limit():
    parts = one()
    for _ in range(MAX_PARTS):
        parts.can((0, 0.5, 0), 0.2, 0.1, role=Role.MAIN, wall=NO_LIMIT)
    assert parts.table().fields.shape[1] == MAX_PARTS
    parts.ball((0, 0, 0), 0.1, role=Role.MAIN)
    with pytest.raises(ValueError, match="at most 16 parts"):
        parts.table()
