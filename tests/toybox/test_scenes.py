"""Contracts that every scene keeps, and the statistics of the noise under them."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dora_diffusion.toybox.noise import cells, fbm, hashed, line_noise, mix, smoothstep, spots, value_noise
from dora_diffusion.toybox.scenes import SCENES_BY_NAME, Scene
from dora_diffusion.toybox.scenes.scene import Luck, light_of, pick
from dora_diffusion.toybox.words import SCENES

SIDE = 40
SEEDS = (3, 40_000_000_019, 77, 2**40 + 5)
scenes = pytest.mark.parametrize("scene", SCENES_BY_NAME.values(), ids=list(SCENES_BY_NAME))


def _seeds(*numbers: int) -> Tensor:
    return torch.tensor(numbers, dtype=torch.int64)[:, None]


def _ground(scene: Scene, seed: Tensor, side: int = SIDE) -> Tensor:
    """What a camera before the toy sees of the ground, the horizon included."""
    x = torch.linspace(-0.83, 0.83, side).repeat(side)
    z = (2.3 - 0.8 / torch.linspace(0.0133, 0.6, side)).repeat_interleave(side)
    x, z = (v.expand(len(seed), -1) for v in (x * (2.3 - z) / 2.3, z))
    return scene.ground(x, z, torch.sqrt(x * x + z * z), seed)


def _back(scene: Scene, seed: Tensor, side: int = SIDE) -> Tensor:
    """As much of the back as a picture could show at most."""
    wide, low, high = (1.2, 0.0, 2.4) if scene.wall else (0.36, -0.02, 0.70)
    u = torch.linspace(-wide, wide, side).repeat(side)
    v = torch.linspace(high, low, side).repeat_interleave(side)
    return scene.back(u.expand(len(seed), -1), v.expand(len(seed), -1), seed)


views = pytest.mark.parametrize("view", [_ground, _back], ids=["ground", "back"])


def test_scenes_are_those_of_the_words() -> None:
    assert list(SCENES_BY_NAME) == list(SCENES)


@scenes
@views
def test_colors_have_the_right_shape_and_range(scene, view) -> None:
    colors = view(scene, _seeds(*SEEDS))
    assert colors.shape == (len(SEEDS), SIDE * SIDE, 3) and colors.dtype == torch.float32
    assert torch.isfinite(colors).all()
    assert colors.min() >= 0 and colors.max() <= 1


@scenes
@views
def test_same_seed_same_picture(scene, view) -> None:
    assert torch.equal(view(scene, _seeds(*SEEDS)), view(scene, _seeds(*SEEDS)))


@scenes
@views
def test_a_picture_does_not_depend_on_its_batch(scene, view) -> None:
    together = view(scene, _seeds(*SEEDS))
    for row, seed in enumerate(SEEDS):
        torch.testing.assert_close(together[row], view(scene, _seeds(seed))[0], atol=1e-4, rtol=0)


@scenes
def test_seeds_look_different(scene) -> None:
    pictures = torch.cat([_ground(scene, _seeds(*range(1, 7))), _back(scene, _seeds(*range(1, 7)))], 1)
    for a in range(6):
        for b in range(a):
            assert (pictures[a] - pictures[b]).abs().mean() > 0.004


def test_scenes_look_different() -> None:
    looks = [
        torch.cat([_ground(s, _seeds(9, 10)), _back(s, _seeds(9, 10))], 1).mean(0) for s in SCENES_BY_NAME.values()
    ]
    for a in range(len(looks)):
        for b in range(a):
            assert (looks[a] - looks[b]).abs().mean() > 0.04


@scenes
@views
def test_textures_survive_an_autoencoder(scene, view) -> None:
    """At 128 px, a blur of three pixels changes little: no grain."""
    picture = _shown(view(scene, _seeds(*SEEDS[:2]), 128)).view(2, 128, 128, 3).permute(0, 3, 1, 2)
    blurred = F.avg_pool2d(F.pad(picture, (1, 1, 1, 1), mode="replicate"), 3, 1)
    assert (picture - blurred).abs().mean() < 0.045


def _shown(light: Tensor) -> Tensor:
    """The renderer's tone curve."""
    return (1 - torch.exp(-1.9 * light)) / (1 - math.exp(-1.9))


def test_light_of_inverts_the_tone_curve() -> None:
    display = torch.linspace(0, 1, 50)
    torch.testing.assert_close(_shown(light_of(display)), display)


@scenes
def test_lights_are_colors(scene) -> None:
    for color in (scene.key_color, scene.sky, scene.bounce, scene.haze_color):
        assert len(color) == 3 and all(0 <= c <= 1 for c in color)
    assert 0.4 <= scene.key_strength <= 1.3 and 0 <= scene.haze < 1


# ------------------------------------------------------------------------------------------------------------- noise


def _lattice(side: int = 200) -> tuple[Tensor, Tensor]:
    line = torch.arange(side, dtype=torch.float32) - side // 2
    return line.repeat(side)[None], line.repeat_interleave(side)[None]


def test_hash_is_pinned() -> None:
    """The same numbers on every machine, for ever: pictures and their training depend on them."""
    x, y = torch.tensor([[0.0, 1.0, -3.0, 700.0]]), torch.tensor([[0.0, 0.0, 5.0, -900.0]])
    bits = (hashed(x, y, _seeds(1, 2**33 + 7)) * 2**24).long()
    assert bits.tolist() == [[10193660, 16126658, 7077705, 1597846], [8729079, 994701, 7697249, 3531903]]


@pytest.mark.gpu
def test_cuda_draws_the_same_noise_and_scenes() -> None:
    x, y = _lattice()
    seed = _seeds(*SEEDS)
    for noise in (hashed, value_noise, fbm):
        values = noise(x * 0.37, y * 0.37, seed)
        torch.testing.assert_close(
            noise(x.cuda() * 0.37, y.cuda() * 0.37, seed.cuda()).cpu(), values, atol=1e-6, rtol=0
        )
    assert torch.equal(hashed(x.cuda(), y.cuda(), seed.cuda()).cpu(), hashed(x, y, seed))
    u = torch.linspace(-1.2, 1.2, 64).repeat(64).expand(len(seed), -1)
    v = torch.linspace(0.0, 0.9, 64).repeat_interleave(64).expand(len(seed), -1)
    for scene in SCENES_BY_NAME.values():
        difference = scene.back(u.cuda(), v.cuda(), seed.cuda()).cpu() - scene.back(u, v, seed)
        assert (difference.abs() > 1e-3).float().mean() < 1e-3  # a rounding may move the edge of a cell


def test_hash_is_uniform_and_uncorrelated() -> None:
    x, y = _lattice()
    values = hashed(x, y, _seeds(5))[0].view(200, 200)
    assert values.min() >= 0 and values.max() < 1
    assert abs(values.mean() - 0.5) < 0.006 and abs(values.var() - 1 / 12) < 0.002
    assert (torch.histc(values, 20, 0, 1) / 2000 - 1).abs().max() < 0.1
    for other in (
        values.roll(1, 0),
        values.roll(1, 1),
        values.roll((1, 1), (0, 1)),
        hashed(x, y, _seeds(6))[0].view(200, 200),
    ):
        assert torch.corrcoef(torch.stack([values.flatten(), other.flatten()]))[0, 1].abs() < 0.02


def test_seeds_beyond_32_bits_count() -> None:
    x, y = _lattice(20)
    assert not torch.equal(hashed(x, y, _seeds(5)), hashed(x, y, _seeds(5 + 2**32)))


def test_value_noise_meets_the_hash_and_is_smooth() -> None:
    x, y = _lattice(30)
    seed = _seeds(11)
    assert torch.equal(value_noise(x, y, seed), hashed(x, y, seed))
    near = value_noise(x + 0.4999, y + 0.3, seed) - value_noise(x + 0.5, y + 0.3, seed)
    across = value_noise(x + 0.99999, y, seed) - value_noise(x + 1, y, seed)
    assert near.abs().max() < 1e-3 and across.abs().max() < 1e-3


@pytest.mark.parametrize("octaves", [1, 2, 4])
def test_fbm_is_in_range_with_mean_a_half(octaves) -> None:
    x, y = _lattice()
    values = fbm(x * 0.37, y * 0.37, _seeds(8), octaves)
    assert values.min() >= 0 and values.max() <= 1
    assert abs(values.mean() - 0.5) < 0.02 and values.std() > 0.1
    line = line_noise(x * 0.37, _seeds(8), octaves)
    assert line.min() >= 0 and line.max() <= 1


def test_blurred_fbm_is_its_mean() -> None:
    x, y = _lattice(20)
    values = fbm(x * 0.37, y * 0.37, _seeds(8), 3, torch.full_like(x, 2.0))
    torch.testing.assert_close(values, torch.full_like(x, 0.5))


def test_spots_stay_in_their_cells() -> None:
    x, y = _lattice(50)
    dx, dy, number = spots(x + 0.5, y + 0.5, _seeds(4), spread=0.3)
    assert max(dx.abs().max(), dy.abs().max()) <= 0.15 + 1e-4
    assert abs(number.mean() - 0.5) < 0.03
    distance, same = cells(x + 0.5, y + 0.5, _seeds(4))
    assert distance.max() <= 0.25 * math.sqrt(2) + 1e-4 and torch.equal(number, same)


def test_mix_takes_numbers_and_tensors() -> None:
    t = torch.tensor([[0.0, 0.5, 1.0]])
    expected = torch.tensor([[[0.0, 0.2, 1.0], [0.5, 0.4, 0.5], [1.0, 0.6, 0.0]]])
    torch.testing.assert_close(mix((0.0, 0.2, 1.0), (1.0, 0.6, 0.0), t), expected)
    torch.testing.assert_close(mix(torch.tensor([[[0.0, 0.2, 1.0]]]), (1.0, 0.6, 0.0), t), expected)


def test_smoothstep_goes_both_ways() -> None:
    x = torch.tensor([-1.0, 0.0, 0.5, 1.0, 2.0])
    torch.testing.assert_close(smoothstep(0.0, 1.0, x), torch.tensor([0.0, 0.0, 0.5, 1.0, 1.0]))
    torch.testing.assert_close(smoothstep(1.0, 0.0, x), torch.tensor([1.0, 1.0, 0.5, 0.0, 0.0]))


def test_luck_is_fair_and_repeatable() -> None:
    luck = Luck(torch.arange(20_000)[:, None])
    numbers = torch.cat([luck.number(place) for place in range(20)], 1)
    assert (numbers.mean(0) - 0.5).abs().max() < 0.01
    assert (torch.corrcoef(numbers.T) - torch.eye(20)).abs().max() < 0.03
    assert abs(luck.yes(3, 0.3).mean() - 0.3) < 0.02
    assert torch.equal(luck.color(5, (0, 0, 0), (1, 1, 1)), luck.color(5, (0, 0, 0), (1, 1, 1)))
    assert luck.color(5, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7), (0.2, 0.2, 0.2)).shape == (20_000, 1, 3)
    assert set(luck.side(2).unique().tolist()) == {-1.0, 1.0}
    colors = pick(((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)), torch.tensor([[0.0, 0.49, 0.51, 1.0]]))
    assert colors[0, :, 1].tolist() == [0.0, 0.0, 1.0, 1.0]
