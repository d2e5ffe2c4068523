"""Toys of the house: lamp, house, chair, shoe, backpack."""

from dora_diffusion.toybox.parts import Parts, Role, Shape
from dora_diffusion.toybox.toys.toy import UPRIGHT, UPSIDE_DOWN, either, kinds


def lamp(parts: Parts, shape: Shape) -> None:
    """A table lamp: cone, drum or dome on a ball, a cone, two balls or a thick stem."""
    shade, half = shape.between(0, 0.31, 0.4), shape.between(1, 0.2, 0.25)
    foot, belly = shape.between(2, 0.19, 0.27), shape.between(3, 0.12, 0.165)
    level, trim = shape.between(4, 0.73, 0.79), shape.between(5, 0.028, 0.04)
    flare, dome = shape.between(6, 0.0, 0.16), shape.above(6, 0.7)
    stem, ball, cone, pair = kinds(shape, 7, 4)
    slope = either(dome, 0.0, flare)
    rim, top = level - half * either(dome, 0.8, 0.9), level + half
    wide = shade + either(dome, 0.005, slope * 0.1 + 0.01)

    parts.can((0, 0.045, 0), foot, 0.045, role=Role.THIRD, edge=0.04)
    parts.can((0, level * 0.5, 0), either(stem, 0.06, 0.035), level * 0.5, role=Role.SECOND)
    parts.ball((0, 0.08 + belly, 0), belly, role=Role.SECOND, present=ball)
    parts.can((0, 0.08 + belly, 0), belly * 0.75, belly * 1.15, role=Role.SECOND, taper=belly * 0.5, present=cone)
    parts.ball((0, 0.2, 0), 0.125, role=Role.SECOND, present=pair)
    parts.ball((0, 0.4, 0), 0.1, role=Role.SECOND, present=pair)
    parts.ball((0, 0.12, 0), 0.11, role=Role.SECOND, scale=(1.2, 0.8, 1.2), present=stem)
    tall = (1.0, half * 1.8 / shade, 1.0)
    parts.ball((0, rim, 0), shade, role=Role.MAIN, scale=tall, cut=0.0, turn=UPSIDE_DOWN, present=dome)
    parts.can((0, level, 0), shade - slope * 0.6, half, role=Role.MAIN, taper=slope * 0.75, present=~dome)
    parts.can((0, rim - 0.01, 0), wide - 0.03, trim, role=Role.GLOW)
    parts.can((0, rim, 0), wide, trim, role=Role.THIRD, wall=0.025)
    parts.ring((0, top - 0.02, 0), shade - slope * 1.35 - 0.02, 0.026, role=Role.THIRD, present=~dome)
    parts.ball((0, top + 0.01, 0), 0.05, role=Role.THIRD)


def house(parts: Parts, shape: Shape) -> None:
    """A two-storey house under a gable, a hipped roof or a tower, with a chimney or none."""
    width, half = shape.between(0, 0.33, 0.38), shape.between(1, 0.295, 0.33)
    deep, steep = shape.between(2, 0.25, 0.31), shape.between(3, 0.13, 0.2)
    plinth, door = shape.between(4, 0.03, 0.045), shape.between(5, 0.078, 0.1)
    gable, hip, tower = kinds(shape, 6, 3)
    chimney = shape.above(7, 0.5)
    eaves = half * 2

    parts.box((0, half, 0), width, half, deep, role=Role.MAIN, edge=0.015)
    parts.box((0, plinth, 0), width + 0.03, plinth, deep + 0.03, role=Role.THIRD, edge=0.015)
    diagonal = (0.0, 0.0, 45.0)
    parts.box(
        (0, eaves, 0), width * 0.69, width * 0.69, deep - 0.005, role=Role.MAIN_PLAIN, turn=diagonal, present=gable
    )
    place, slab = (width * 0.5 + 0.03, eaves + width * 0.5, 0), width * 0.72 + 0.05
    parts.box(
        place, slab, 0.032, deep + 0.035, role=Role.SECOND, edge=0.02, turn=(0, 0, -45), mirror_x=True, present=gable
    )
    roof, over = (0, eaves + steep - 0.01, 0), deep * 0.62 + 0.02
    parts.solid(roof, width * 0.62, steep, over, role=Role.SECOND, corner=0.02, taper=width * 0.5, present=~gable)
    entrance = width * -0.46
    parts.box((entrance, door * 1.5 + plinth, deep), door, door * 1.5, 0.025, role=Role.THIRD, edge=0.012)
    parts.ball((entrance + door * 0.6, door * 1.4 + plinth, deep + 0.03), 0.018, role=Role.GLOW)
    window = (width * 0.52, eaves - 0.1, deep)
    parts.box(window, 0.075, 0.065, 0.015, role=Role.GLOW, edge=0.01, mirror_x=True)
    for across, up in ((0.075, 0.01), (0.01, 0.065)):
        parts.box((window[0], window[1], deep + 0.015), across, up, 0.012, role=Role.WHITE, edge=0.005, mirror_x=True)
    parts.box((width, half * 1.3, 0), 0.015, 0.1, 0.1, role=Role.GLOW, edge=0.01, mirror_x=True)
    stack = (width * 0.5, eaves + either(gable, width * 0.6, steep * 1.1), -0.04)
    parts.box(stack, 0.07, 0.17, 0.07, role=Role.THIRD, edge=0.015, present=chimney & ~tower)
    turret = eaves + steep * 1.4
    parts.can((0, turret, 0), 0.14, 0.12, role=Role.MAIN_PLAIN, present=tower)
    parts.can((0, turret + 0.2, 0), 0.1, 0.1, role=Role.THIRD, edge=0.01, taper=0.085, present=tower)


def chair(parts: Parts, shape: Shape) -> None:
    """A chair with a square, a round or a framed back, with arms or none; always with a cushion."""
    width, seat = shape.between(0, 0.26, 0.34), shape.between(1, 0.34, 0.42)
    back, leg = shape.between(2, 0.27, 0.34), shape.between(3, 0.036, 0.052)
    thick, tilt = shape.between(4, 0.045, 0.065), shape.between(5, -10, -3)
    plain, round_back, framed = kinds(shape, 6, 3)
    arms = shape.above(7, 0.5)
    deep, behind, rear = width * 0.95, seat + back, width * -0.86
    lean = (tilt, 0.0, 0.0)

    parts.box((0, seat, 0), width, 0.06, deep, role=Role.MAIN, edge=0.04, corner=0.07)
    parts.box(
        (0, seat + 0.06 + thick, 0.04), width * 0.86, thick, width * 0.8, role=Role.THIRD, edge=0.045, corner=0.08
    )
    place = (width - leg, seat * 0.5, deep - leg)
    parts.can(place, leg, seat * 0.5, role=Role.SECOND, taper=-0.012, mirror_x=True, mirror_z=True)
    parts.box((0, behind, rear), width, back, 0.05, role=Role.MAIN, edge=0.04, turn=lean, present=plain)
    around = (90 + tilt, 0.0, 0.0)
    parts.can((0, behind, rear), width * 1.08, 0.05, role=Role.MAIN, edge=0.04, turn=around, present=round_back)
    post = (width - 0.04, behind, rear)
    parts.box(post, 0.04, back, 0.04, role=Role.SECOND, turn=lean, mirror_x=True, present=framed)
    parts.box((0, behind + back * 0.25, rear), width, back * 0.64, 0.042, role=Role.MAIN, turn=lean, present=framed)
    parts.box((width, seat + 0.24, 0), 0.055, 0.04, width * 0.92, role=Role.MAIN, mirror_x=True, present=arms)
    parts.can((width, seat + 0.12, width * 0.6), 0.035, 0.13, role=Role.SECOND, mirror_x=True, present=arms)


def shoe(parts: Parts, shape: Shape) -> None:
    """A shoe that walks to the left, from a sneaker to a boot, with laces or straps."""
    long, high = shape.between(0, 0.42, 0.51), shape.between(1, 0.07, 0.28)
    sole, cap = shape.between(2, 0.04, 0.056), shape.between(3, 0.095, 0.12)
    toe, wide = shape.between(4, 0.75, 1.0), shape.between(7, 0.165, 0.19)
    straps, stripe = shape.above(5, 0.5), shape.above(6, 0.5)
    heel, ankle, floor = long * 0.4, 0.3 + high, sole * 2
    half, top = (ankle - 0.02) * 0.5, floor + ankle

    parts.box((0, sole, 0), long, sole, wide, role=Role.SECOND, edge=0.03, corner=wide - 0.01)
    parts.ball((long * -0.42, floor + 0.06, 0), 0.2, role=Role.MAIN, scale=(1.25, toe, 0.86), blend=0.06)
    shaft = (heel, floor + half, 0)
    parts.box(shaft, 0.2, half, 0.16, role=Role.MAIN, edge=0.06, corner=0.13, taper=0.03, blend=0.14)
    parts.ball((-0.02, floor + 0.1, 0), 0.18, role=Role.MAIN, scale=(1.3, 0.9, 0.86), blend=0.12)
    parts.box((heel, top - 0.03, 0), 0.18, 0.05, 0.14, role=Role.THIRD, edge=0.04, corner=0.12)
    parts.box((heel, top + 0.01, 0), 0.125, 0.02, 0.09, role=Role.BLACK, edge=0.01, corner=0.08)
    parts.ball((long * -0.76, floor + 0.03, 0), cap, role=Role.THIRD, scale=(1, 0.85, 1.2), blend=0.02)
    parts.box((long * 0.8, floor + 0.1, 0), 0.065, 0.11, 0.13, role=Role.THIRD, edge=0.05)
    for step in range(3):
        lace = (-0.2 + 0.095 * step, floor + 0.2 + 0.045 * step, 0)
        parts.box(lace, 0.02, 0.022, 0.12, role=Role.SECOND, edge=0.018, present=~straps)
    for step in range(2):
        strap = (-0.17 + 0.14 * step, floor + 0.16 + 0.06 * step, 0)
        parts.box(strap, 0.04, 0.05, 0.15, role=Role.SECOND, turn=(0, 0, 30), present=straps)
    side = (-0.1, floor + 0.08, 0.15)
    parts.box(side, 0.035, 0.09, 0.03, role=Role.SECOND, edge=0.02, turn=(-15, 0, -25), mirror_z=True, present=stripe)


def backpack(parts: Parts, shape: Shape) -> None:
    """A backpack under a flap, rolled up, or with ears; side pockets with bottles or none; square or round pocket."""
    width, half = shape.between(0, 0.27, 0.33), shape.between(1, 0.36, 0.43)
    bulge, pocket = shape.between(2, 0.06, 0.14), shape.between(3, 0.17, 0.21)
    handle, round_pocket = shape.between(4, 0.07, 0.11), shape.above(4, 0.5)
    flap, roll, ears = kinds(shape, 5, 3)
    bottles, strap = shape.above(6, 0.5), shape.between(7, 0.045, 0.07)
    top, high, corner = half * 2, shape.between(7, 0.15, 0.18), either(round_pocket, 0.14, 0.05)

    parts.box((0, half, 0), width, half, 0.18, role=Role.MAIN, edge=bulge, corner=0.12)
    front = (0, 0.05 + high, 0.19)
    parts.box(front, pocket, 0.07, high, role=Role.SECOND, edge=0.05, corner=corner, turn=UPRIGHT)
    parts.box((0, 0.05 + high * 2, 0.2), pocket + 0.025, 0.068, 0.085, role=Role.THIRD, edge=0.04)
    parts.ball((0, 0.03 + high * 2, 0.285), 0.03, role=Role.METAL)
    parts.ring((0, top + 0.02, -0.04), handle, 0.03, role=Role.THIRD, turn=UPRIGHT)
    parts.box((0, top - 0.05, 0.02), width + 0.015, 0.068, 0.19, role=Role.THIRD, edge=0.07, corner=0.12, present=flap)
    parts.can((0, top + 0.03, 0), 0.11, width + 0.04, role=Role.SECOND, edge=0.04, turn=(0, 0, 90), present=roll)
    ear = (width * 0.66, top + 0.02, 0)
    parts.ball(ear, 0.12, role=Role.MAIN_PLAIN, scale=(1, 1, 0.6), mirror_x=True, present=ears)
    inner = (ear[0], ear[1], 0.06)
    parts.ball(inner, 0.08, role=Role.THIRD, scale=(1, 1, 0.5), mirror_x=True, present=ears)
    parts.ball((0.11, top - 0.17, 0.175), 0.038, role=Role.BLACK, scale=(1, 1, 0.5), mirror_x=True, present=ears)
    parts.box((width + 0.03, 0.17, 0), 0.06, 0.15, 0.11, role=Role.MAIN_PLAIN, edge=0.05, mirror_x=True)
    parts.can((width + 0.05, 0.34, 0), 0.05, 0.11, role=Role.THIRD, edge=0.03, mirror_x=True, present=bottles)
    parts.box((width * 0.6, half, -0.19), strap, half * 0.8, 0.05, role=Role.THIRD, mirror_x=True)
