"""Toys that look at you: robot, snowman."""

from dora_diffusion.toybox.parts import Parts, Role, Shape
from dora_diffusion.toybox.toys.toy import UPSIDE_DOWN, either, kinds


def robot(parts: Parts, shape: Shape) -> None:
    """A robot: square or round head; one antenna, two, or ear discs; legs, or a drum to roll on."""
    width, half = shape.between(0, 0.23, 0.31), shape.between(1, 0.19, 0.23)
    head, tall = shape.between(2, 0.18, 0.25), shape.between(3, 0.12, 0.16)
    arm, round_head = shape.between(4, 5, 45), shape.above(5, 0.55)
    single, pair, discs = kinds(shape, 6, 3)
    rolls = shape.above(7, 0.6)
    chest = 0.21 + half
    face = chest + half + tall + 0.05
    crown, front = face + tall, either(round_head, head * 0.8, 0.16)

    parts.box((0, chest, 0), width, half, 0.17, role=Role.MAIN, edge=0.05)
    parts.can((0, chest + half + 0.02, 0), 0.08, 0.05, role=Role.METAL)
    deep, edge = either(round_head, head, 0.16), either(round_head, 0.11, 0.05)
    corner = either(round_head, head, 0.05)
    parts.solid((0, face, 0), head, tall, deep, role=Role.MAIN_PLAIN, edge=edge, corner=corner)
    parts.box((0, face + 0.01, front), head * 0.82, tall * 0.62, 0.04, role=Role.SECOND, edge=0.03)
    parts.ball((head * 0.4, face + 0.03, front + 0.035), 0.05, role=Role.WHITE, scale=(1, 1, 0.5), mirror_x=True)
    parts.ball((head * 0.4, face + 0.03, front + 0.055), 0.027, role=Role.BLACK, mirror_x=True)
    parts.box((0, face - tall * 0.38, front + 0.035), 0.08, 0.014, 0.012, role=Role.BLACK, edge=0.01)
    parts.can((0, crown + 0.03, 0), 0.02, 0.06, role=Role.METAL, present=single)
    parts.ball((0, crown + 0.11, 0), 0.065, role=Role.THIRD, present=single)
    horn = (head * 0.6, crown + 0.05, 0)
    parts.can(horn, 0.032, 0.09, role=Role.THIRD, taper=0.012, turn=(0, 0, -20), mirror_x=True, present=pair)
    parts.can((head + 0.02, face, 0), 0.085, 0.035, role=Role.THIRD, turn=(0, 0, 90), mirror_x=True, present=discs)
    shoulder = (width + 0.09, chest + 0.02, 0)
    parts.can(shoulder, 0.07, 0.2, role=Role.SECOND, edge=0.065, turn=(0, 0, arm), mirror_x=True)
    parts.box((width * 0.5, 0.12, 0.02), 0.095, 0.12, 0.12, role=Role.THIRD, edge=0.04, mirror_x=True, present=~rolls)
    parts.can((0, 0.15, 0), 0.15, width * 0.92, role=Role.THIRD, edge=0.04, turn=(0, 0, 90), present=rolls)


def snowman(parts: Parts, shape: Shape) -> None:
    """A snowman of two or three balls, with mittens, a scarf, and a top hat, a bobble hat or a bucket."""
    three = shape.above(5, 0.4)
    base = shape.between(0, 0.25, 0.29) * either(three, 1.0, 1.15)
    trunk, head = base * shape.between(1, 0.68, 0.78), base * shape.between(2, 0.54, 0.64)
    nose, arm = shape.between(3, 0.07, 0.13), shape.between(4, 35, 80)
    brim = shape.between(6, 1.05, 1.35)
    top_hat, bobble, bucket = kinds(shape, 7, 3)
    waist = base * 1.58 + trunk * 0.5
    neck = either(three, waist + trunk * 0.87, base * 1.78)
    face, arms = neck + head * 0.74, either(three, waist + 0.06, base * 1.35)
    side, crown = either(three, trunk, base * 0.85), neck + head * 1.42

    parts.ball((0, base * 0.92, 0), base, role=Role.MAIN, blend=0.03)
    parts.ball((0, waist, 0), trunk, role=Role.MAIN, blend=0.03, present=three)
    parts.ball((0, face, 0), head, role=Role.MAIN)
    parts.can((0, face, head + nose * 0.5), 0.035, nose, role=Role.ORANGE, taper=0.028, turn=(90, 0, 0))
    parts.ball((head * 0.4, face + head * 0.3, head * 0.85), 0.03, role=Role.BLACK, mirror_x=True)
    parts.ball((0, waist - 0.03, trunk * 0.99), 0.034, role=Role.BLACK, present=three)
    parts.ring((0, neck - 0.01, 0), head * 0.82, 0.062, role=Role.THIRD)
    end = (0.1, neck - 0.12, either(three, trunk * 0.86, base * 0.72))
    parts.box(end, 0.058, 0.12, 0.035, role=Role.THIRD, edge=0.025, turn=(-24, 0, 8))
    parts.can((side + 0.09, arms + 0.04, 0), 0.022, 0.16, role=Role.WOOD, turn=(0, 0, -arm), mirror_x=True)
    parts.ball((side + 0.21, arms + 0.16 - arm * 0.0014, 0), 0.075, role=Role.SECOND, mirror_x=True)
    parts.can((0, crown, 0), head * brim, 0.025, role=Role.SECOND, present=top_hat)
    parts.can((0, crown + 0.1, 0), head * 0.72, 0.11, role=Role.SECOND, present=top_hat)
    parts.can((0, crown + 0.05, 0), head * 0.75, 0.035, role=Role.THIRD, present=top_hat)
    parts.ball((0, face + head * 0.45, 0), head * 0.95, role=Role.SECOND, cut=0.0, turn=UPSIDE_DOWN, present=bobble)
    parts.ball((0, face + head * 1.45, 0), 0.065, role=Role.THIRD, present=bobble)
    parts.can((0, crown + 0.06, 0), head * 0.72, 0.12, role=Role.SECOND, taper=0.045, present=bucket)
