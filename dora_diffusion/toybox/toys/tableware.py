"""Toys from the kitchen: mug, teapot, vase, cupcake."""

from dora_diffusion.toybox.parts import Parts, Role, Shape
from dora_diffusion.toybox.toys.toy import UPRIGHT, either, kinds


def mug(parts: Parts, shape: Shape) -> None:
    """A mug with one handle or two, round or square ones, on a foot or a saucer."""
    radius, half = shape.between(0, 0.27, 0.38), shape.between(1, 0.29, 0.41)
    flare = shape.between(2, -0.07, 0.07)
    thick, reach = shape.between(3, 0.042, 0.062), shape.between(4, 0.13, 0.2)
    square, two, saucer = shape.above(5, 0.55), shape.above(6, 0.6), shape.above(7, 0.5)
    foot = shape.between(7, 0.075, 0.05)

    parts.can((0, half, 0), radius, half, role=Role.MAIN, edge=0.03, wall=0.03, taper=flare)
    parts.can((0, half * 1.65, 0), radius - flare * 0.65 - 0.03, 0.02, role=Role.WOOD)
    parts.can((0, foot, 0), radius + flare + 0.02, foot, role=Role.THIRD, edge=0.03)
    parts.can((0, 0.03, 0), radius + 0.2, 0.03, role=Role.THIRD, edge=0.03, taper=-0.03, present=saucer)
    parts.ring((0, half * 2 - 0.01, 0), radius - flare - 0.03, 0.042, role=Role.SECOND)
    corner = either(square, 0.07, reach + thick)
    place, tall = (radius + 0.03, half, 0), (1.0, 1.0, half * 0.6 / (reach + thick))
    parts.ring(place, reach, thick, role=Role.SECOND, turn=UPRIGHT, corner=corner, scale=tall)
    left = (-radius - 0.03, half, 0)
    parts.ring(left, reach, thick, role=Role.SECOND, turn=UPRIGHT, corner=corner, scale=tall, present=two)


def teapot(parts: Parts, shape: Shape) -> None:
    """A teapot: straight or curved spout, handle at the side or over the lid, domed or pointed lid, foot or feet."""
    radius = shape.between(0, 0.32, 0.39)
    half = radius * shape.between(1, 0.78, 1.02)
    roundness, reach = shape.between(2, 0.5, 1.0), shape.between(3, 0.13, 0.19)
    side, square, over = kinds(shape, 4, 3)
    curved, pointed, feet = shape.above(5, 0.5), shape.above(6, 0.5), shape.above(7, 0.5)
    middle, top = half + 0.06, half * 2 + 0.06
    flat = (1.0, half / radius, 1.0)
    foot = radius * 0.52

    parts.solid((0, middle, 0), radius, radius, role=Role.MAIN, edge=radius * roundness, scale=flat, blend=0.03)
    parts.can((0, 0.05, 0), radius * 0.68, 0.05, role=Role.SECOND, taper=-0.02, present=~feet)
    parts.ball((foot, 0.075, foot), 0.085, role=Role.SECOND, mirror_x=True, mirror_z=True, present=feet)
    parts.ball((0, top - 0.06, 0), radius * 0.76, role=Role.THIRD, scale=(1, 0.5, 1), present=~pointed)
    parts.can((0, top + 0.04, 0), radius * 0.48, 0.13, role=Role.THIRD, taper=radius * 0.3, present=pointed)
    parts.ball((0, top + either(pointed, 0.17, radius * 0.32 + 0.03), 0), 0.06, role=Role.SECOND)
    straight = (-radius - 0.08, middle + 0.08, 0)
    parts.can(straight, 0.075, 0.23, role=Role.MAIN_PLAIN, taper=0.035, turn=(0, 0, 45), blend=0.08, present=~curved)
    lower, upper = (-radius - 0.06, middle - 0.03, 0), (-radius - 0.2, middle + 0.14, 0)
    parts.can(lower, 0.075, 0.17, role=Role.MAIN_PLAIN, edge=0.06, turn=(0, 0, 62), blend=0.1, present=curved)
    parts.can(upper, 0.048, 0.15, role=Role.MAIN_PLAIN, taper=0.014, turn=(0, 0, 18), blend=0.1, present=curved)
    place, corner = (radius + 0.04, middle + 0.05, 0), either(square, 0.06, reach + 0.045)
    parts.ring(place, reach, 0.045, role=Role.SECOND, turn=UPRIGHT, corner=corner, present=~over)
    parts.ring((0, top - 0.04, 0), radius * 0.8, 0.042, role=Role.SECOND, turn=UPRIGHT, present=over)


def vase(parts: Parts, shape: Shape) -> None:
    """A vase: bulging or straight, wide at the top or at the bottom, with flowers or a collar, with handles or none."""
    radius, half = shape.between(0, 0.22, 0.31), shape.between(1, 0.26, 0.33)
    roundness, neck = shape.between(2, 0.35, 1.0), shape.between(3, 0.085, 0.15)
    flowers, handles = shape.above(4, 0.4), shape.above(5, 0.55)
    flare, bloom = shape.between(6, -0.06, 0.06), shape.between(7, 0.085, 0.11)
    middle, top = half + 0.09, half * 2 + 0.09
    lean, tall = 120 * bloom + 6, (1.0, half / radius, 1.0)

    edge = radius * roundness
    parts.solid((0, middle, 0), radius, radius, role=Role.MAIN, edge=edge, taper=flare, scale=tall, blend=0.03)
    parts.can((0, top + 0.02, 0), neck, 0.12, role=Role.MAIN, wall=0.02, blend=0.1)
    parts.can((0, top + 0.13, 0), neck + 0.06, 0.045, role=Role.SECOND, wall=0.035, taper=-0.03)
    parts.can((0, 0.06, 0), radius * 0.8, 0.06, role=Role.THIRD, taper=0.02)
    parts.ring((0, top - 0.005, 0), neck + 0.03, 0.052, role=Role.THIRD, present=~flowers)
    place = (radius * 0.72, middle + half * 0.55, 0)
    parts.ring(place, 0.13, 0.034, role=Role.SECOND, turn=UPRIGHT, scale=(1, 1, 1.2), mirror_x=True, present=handles)
    parts.can((0, top + 0.18, 0), 0.014, 0.18, role=Role.LEAF, present=flowers)
    parts.can((0.06, top + 0.17, 0), 0.014, 0.16, role=Role.LEAF, turn=(0, 0, -lean), mirror_x=True, present=flowers)
    parts.ball((0, top + 0.35, 0), bloom, role=Role.THIRD, scale=(1, 0.85, 1), present=flowers)
    beside = (0.065 + lean * 0.005, top + 0.28, 0.02)
    parts.ball(beside, bloom * 0.9, role=Role.SECOND, scale=(1, 0.85, 1), mirror_x=True, present=flowers)


def cupcake(parts: Parts, shape: Shape) -> None:
    """A cupcake: cream in a swirl or in dollops; a cherry, a candle or a wafer cone on top; with sprinkles or none."""
    radius, half = shape.between(0, 0.28, 0.35), shape.between(1, 0.15, 0.175)
    flare, puff = shape.between(2, 0.03, 0.07), shape.between(3, 1.17, 1.32)
    dollops, sprinkled = shape.above(4, 0.5), shape.above(6, 0.45)
    cherry, candle, cone = kinds(shape, 5, 3)
    size = shape.between(7, 0.09, 0.12)
    brim, cream = half * 2, radius * puff
    top = brim + either(dollops, 0.08 + cream * 0.8, 0.36)

    parts.can((0, half, 0), radius - flare * 0.5, half, role=Role.SECOND, taper=-flare)
    parts.can((0, brim, 0), cream + 0.005, 0.04, role=Role.THIRD, edge=0.04)
    for width, height in ((1.0, 0.09), (0.78, 0.21), (0.48, 0.32)):
        roll = radius * 0.4 * (0.55 + 0.45 * width)
        around = (0, brim + height, 0)
        parts.ring(around, cream * width - roll, roll, role=Role.MAIN, blend=0.03, present=~dollops)
    out, diagonal, level, blob = cream * 0.64, cream * 0.46, brim + 0.1, cream * 0.36
    parts.ball((out, level, 0), blob, role=Role.MAIN, blend=0.02, mirror_x=True, present=dollops)
    parts.ball((0, level, out), blob, role=Role.MAIN, blend=0.02, mirror_z=True, present=dollops)
    corner = (diagonal, level, diagonal)
    parts.ball(corner, blob, role=Role.MAIN, blend=0.02, mirror_x=True, mirror_z=True, present=dollops)
    parts.ball((0, level + cream * 0.18, 0), cream * 0.62, role=Role.MAIN, blend=0.02, present=dollops)
    parts.ball((0, top + size * 0.5, 0), size, role=Role.THIRD, present=cherry)
    parts.can((0, top + 0.08, 0), size * 0.5, 0.15, role=Role.THIRD, present=candle)
    parts.ball((0, top + 0.27, 0), 0.045, role=Role.GLOW, scale=(1, 1.5, 1), present=candle)
    parts.can(
        (0.03, top + 0.11, 0), size * 0.7, 0.15, role=Role.THIRD, taper=size * 0.6, turn=(0, 0, -14), present=cone
    )
    for x, y, z in ((0.36, 0.25, 0.7), (0.7, 0.16, 0.52), (0.14, 0.34, 0.45)):
        place = (x * cream, brim + y, z * cream)
        parts.ball(place, 0.042, role=Role.THIRD, scale=(1.4, 0.8, 0.8), mirror_x=True, present=sprinkled)
