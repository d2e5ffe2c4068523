"""Toys that grow: mushroom, cactus, tree."""

from dora_diffusion.toybox.parts import Parts, Role, Shape
from dora_diffusion.toybox.toys.toy import UPSIDE_DOWN, either, kinds


def mushroom(parts: Parts, shape: Shape) -> None:
    """A mushroom with a round, flat or pointed cap, with a face or none, with a little one beside it or none."""
    cap, half = shape.between(0, 0.4, 0.5), shape.between(1, 0.23, 0.285)
    stem, flare = shape.between(2, 0.17, 0.21), shape.between(3, 0.0, 0.05)
    steep, brim = shape.between(4, 0.72, 1.02), shape.between(5, 0.05, 0.068)
    pointed, child = shape.above(6, 0.6), shape.above(7, 0.5)
    face = shape.above(5, 0.5)
    edge, beside = half * 2 - 0.02, cap * 0.75

    parts.can((0, half, 0), stem, half, role=Role.SECOND, edge=0.08, taper=flare)
    parts.ball((0, edge, 0), cap, role=Role.MAIN, scale=(1, steep, 1), cut=0.0, turn=UPSIDE_DOWN, present=~pointed)
    parts.can((0, edge + 0.25, 0), cap * 0.64, 0.25, role=Role.MAIN, edge=0.12, taper=cap * 0.36, present=pointed)
    parts.can((0, edge - 0.01, 0), cap + 0.015, brim, role=Role.THIRD, edge=brim)
    parts.can((0, edge - 0.06, 0), stem + 0.06, 0.03, role=Role.CREAM, edge=0.03)
    parts.ball((0.07, edge - 0.13, stem * 0.98), 0.028, role=Role.BLACK, mirror_x=True, present=face)
    parts.can((beside, 0.08, 0.16), 0.06, 0.08, role=Role.SECOND, present=child)
    parts.ball((beside, 0.15, 0.16), 0.14, role=Role.THIRD, scale=(1, 0.8, 1), cut=0.0, turn=UPSIDE_DOWN, present=child)


def cactus(parts: Parts, shape: Shape) -> None:
    """A cactus in a pot: one arm, two, a pair, or flat pads; one flower or a crown of them; a saucer or none."""
    tall, radius = shape.between(0, 0.29, 0.37), shape.between(1, 0.16, 0.21)
    high, low = shape.between(2, 0.85, 1.15), shape.between(3, 0.6, 1.0)
    pot = shape.between(4, 0.22, 0.27)
    one, two, pair, pads = kinds(shape, 5, 4)
    saucer, crown = shape.above(6, 0.5), shape.above(7, 0.5)
    soil, reach, flare = 0.32, radius + 0.13, 0.28 - pot
    width, slim = either(pads, radius * 1.25, radius), (1.0, 1.0, either(pads, 0.75, 1.0))
    middle, top = soil + tall - 0.05, soil + tall * 2 - 0.05

    parts.can((0, 0.15, 0), pot, 0.15, role=Role.SECOND, taper=-flare)
    parts.can((0, 0.3, 0), pot + flare + 0.03, 0.042, role=Role.THIRD, edge=0.03)
    parts.can((0, 0.025, 0), pot + 0.06, 0.025, role=Role.THIRD, edge=0.02, present=saucer)
    parts.can((0, middle, 0), width, tall, role=Role.MAIN, edge=width * 0.98, scale=slim, blend=0.03)
    for side, level, there, both in ((1, high, one | two, False), (-1, low, two, False), (1, high, pair, True)):
        elbow = soil + tall * level
        arm, hand = (side * (reach - 0.06), elbow, 0), (side * reach, elbow + 0.1, 0)
        bent = (0.0, 0.0, 90.0)
        parts.can(arm, 0.07, 0.12, role=Role.MAIN, edge=0.065, turn=bent, blend=0.06, mirror_x=both, present=there)
        parts.can(hand, 0.075, 0.17, role=Role.MAIN, edge=0.07, blend=0.06, mirror_x=both, present=there)
    pad = (width + 0.06, soil + tall * high * 1.2, 0)
    parts.ball(pad, 0.15, role=Role.MAIN, scale=(0.8, 1.1, 0.5), turn=(0, 0, -42), mirror_x=True, present=pads)
    for across, up in ((0.52, -0.28), (0.22, 0.08), (0.48, 0.42)):
        spine = (width * across, middle + tall * up, width * (1.02 - across * 0.3) * slim[2])
        parts.ball(spine, 0.022, role=Role.CREAM, mirror_x=True)
    parts.ball((0, top + 0.02, 0), 0.11, role=Role.THIRD, scale=(1, 0.7, 1))
    parts.ball((0.1, top, 0.05), 0.075, role=Role.THIRD, scale=(1, 0.8, 1), mirror_x=True, present=crown)


def tree(parts: Parts, shape: Shape) -> None:
    """A tree, in a pot or not: a fir with garlands; a bushy, a slim or a two-storey crown with fruit."""
    crown, trunk = shape.between(0, 0.35, 0.43), shape.between(1, 0.15, 0.19)
    bole, slope = shape.between(2, 0.085, 0.12), shape.between(3, 0.44, 0.54)
    fruit, side = shape.between(4, 0.068, 0.086), shape.between(5, 0.22, 0.28)
    fir, bush, egg, storeys = kinds(shape, 6, 4)
    pot = shape.above(7, 0.5)
    foot, half = trunk * 2, trunk + either(storeys, 0.2, 0.06)

    parts.can((0, half, 0), bole, half, role=Role.SECOND, taper=0.02)
    parts.can((0, 0.1, 0), bole + 0.09, 0.1, role=Role.SECOND, taper=-0.03, present=pot)
    for tier, size in enumerate((1.0, 0.76, 0.52)):
        level, skirt = foot + 0.14 + 0.21 * tier, crown * size
        parts.can((0, level, 0), skirt * 0.56, 0.16, role=Role.MAIN, edge=0.03, taper=skirt * slope, present=fir)
        if tier != 1:  # the middle one has room for an emblem
            parts.ring((0, level - 0.11, 0), skirt * 0.92, 0.04, role=Role.THIRD, present=fir)
    parts.ball((0, foot + 0.76, 0), 0.08, role=Role.THIRD, present=fir)
    width = crown * either(egg, 0.8, either(storeys, 1.02, 0.76))
    height = either(egg, 0.42, either(storeys, 0.22, width))
    middle = foot + either(egg, 0.38, either(storeys, 0.26, 0.44))
    parts.ball((0, middle, 0), width, role=Role.MAIN, scale=(1, height / width, 1), blend=0.05, present=~fir)
    puff = (crown * 0.5, foot + 0.24, 0.0)
    parts.ball(puff, side, role=Role.MAIN, blend=0.05, mirror_x=True, present=bush)
    upper = (0, middle + 0.34, 0)
    parts.ball(upper, crown * 0.66, role=Role.MAIN, scale=(1, 0.17 / (crown * 0.66), 1), present=storeys)
    for x, y, z, spread in ((0.5, 0.6, 0.55, 1.0), (0.74, -0.1, 0.6, 1.15), (0.48, -0.66, 0.5, 1.6)):
        around = width * either(bush, spread, 1.0)  # a bush is widest at its foot
        place = (around * x, middle + height * y, around * z)
        parts.ball(place, fruit, role=Role.THIRD, mirror_x=True, mirror_z=True, present=~fir)
