"""Toys that go somewhere: car, boat, rocket. The car and the boat head to the left."""

from dora_diffusion.toybox.parts import Parts, Role, Shape
from dora_diffusion.toybox.toys.toy import UPRIGHT, UPSIDE_DOWN, kinds


def car(parts: Parts, shape: Shape) -> None:
    """A car, short or long, its cabin at the front, in the middle or at the back; luggage rack, siren or spoiler."""
    long, half = shape.between(0, 0.46, 0.56), shape.between(1, 0.15, 0.185)
    wide, wheel = shape.between(2, 0.23, 0.28), shape.between(3, 0.1, 0.14)
    cabin, tall = shape.between(4, 0.18, 0.34), shape.between(5, 0.085, 0.13)
    back = shape.between(6, -0.9, 1.1) * (long - cabin) * 0.4
    rack, siren, spoiler = kinds(shape, 7, 3)
    middle = half + 0.075
    belt = middle + half
    glass, roof = belt + tall * 0.72, belt + tall * 1.75

    parts.box((0, middle, 0), long, half, wide, role=Role.MAIN, edge=0.07, corner=0.1)
    parts.box(
        (back, belt + tall * 0.75, 0), cabin, tall, wide * 0.88, role=Role.SECOND, edge=0.05, corner=0.07, taper=0.06
    )
    sides, ends = (cabin - 0.07, wide * 0.88 + 0.012), (cabin + 0.008, wide * 0.88 - 0.06)
    for width, depth in (sides, ends):
        parts.box((back, glass, 0), width, tall * 0.45, depth, role=Role.BLACK, edge=0.02, taper=0.04)
    axle = long * 0.63
    parts.can((axle, wheel, wide - 0.02), wheel, 0.055, role=Role.BLACK, turn=UPRIGHT, mirror_x=True, mirror_z=True)
    hub = (axle, wheel, wide + 0.03)
    parts.can(hub, wheel * 0.62, 0.02, role=Role.THIRD, turn=UPRIGHT, mirror_x=True, mirror_z=True)
    parts.ball((-long, middle + 0.04, wide * 0.6), 0.055, role=Role.GLOW, mirror_z=True)
    parts.box((0, 0.1, 0), long + 0.03, 0.036, wide + 0.012, role=Role.THIRD, edge=0.03, corner=0.1)
    parts.box((back, roof + 0.04, 0), cabin * 0.6, 0.045, wide * 0.6, role=Role.THIRD, edge=0.03, present=rack)
    parts.can((back, roof + 0.03, 0), 0.065, 0.06, role=Role.THIRD, edge=0.05, present=siren)
    wing = (long - 0.06, belt + 0.13, 0)
    parts.box(wing, 0.08, 0.022, wide * 0.9, role=Role.THIRD, edge=0.02, turn=(0, 0, 12), present=spoiler)
    strut = (long - 0.07, belt + 0.05, wide * 0.6)
    parts.box(strut, 0.03, 0.09, 0.022, role=Role.SECOND, edge=0.015, mirror_z=True, present=spoiler)


def boat(parts: Parts, shape: Shape) -> None:
    """A boat under sail, with a cabin and one chimney, or with two chimneys."""
    long, wide = shape.between(0, 0.48, 0.58), shape.between(1, 0.22, 0.28)
    half, flare = shape.between(2, 0.185, 0.225), shape.between(3, 0.03, 0.08)
    cabin, up = shape.between(4, 0.15, 0.23), shape.between(5, 0.27, 0.35)
    sheet, flag = shape.between(6, 0.15, 0.2), shape.above(6, 0.4)
    sail, one, two = kinds(shape, 7, 3)
    deck = half * 2
    plan, flat = (long / wide, 1.0, 1.0), (1.0, 1.0, 0.3)

    parts.can((0, half, 0), wide - flare, half, role=Role.MAIN, edge=0.04, taper=-flare, scale=plan)
    parts.can((0, 0.055, 0), wide - flare * 1.8 + 0.008, 0.055, role=Role.THIRD, scale=plan)
    parts.can((0, deck, 0), wide + 0.012, 0.032, role=Role.SECOND, edge=0.03, scale=plan)
    parts.can((0, deck + 0.028, 0), wide - 0.04, 0.012, role=Role.WOOD, edge=0.01, scale=plan)
    parts.can((0, deck + up, 0), 0.024, up + 0.03, role=Role.WOOD, present=sail)
    level = deck + up * 0.95 + 0.06
    main_sail, jib = (sheet + 0.03, level, 0), (-0.17, level - up * 0.12, 0)
    parts.can(main_sail, sheet * 0.52, up * 0.82, role=Role.SECOND, taper=sheet * 0.48, scale=flat, present=sail)
    parts.can(jib, 0.075, up * 0.7, role=Role.THIRD, taper=0.068, scale=flat, present=sail)
    parts.box((0.085, deck + up * 2, 0), 0.085, 0.045, 0.014, role=Role.THIRD, edge=0.01, present=sail & flag)
    house = deck + 0.11
    parts.box((0.06, house, 0), cabin, 0.11, wide * 0.6, role=Role.SECOND, edge=0.03, present=~sail)
    parts.box((0.06, house + 0.12, 0), cabin + 0.04, 0.03, wide * 0.72, role=Role.THIRD, edge=0.025, present=~sail)
    for place in (-0.45, 0.45):
        port = (0.06 + cabin * place, house, wide * 0.6)
        parts.can(port, 0.05, 0.012, role=Role.GLOW, edge=0.01, turn=UPRIGHT, mirror_z=True, present=~sail)
    parts.can((0.1, house + 0.24, 0), 0.09, 0.13, role=Role.MAIN_PLAIN, taper=0.015, present=one)
    parts.can((0.1, house + 0.31, 0), 0.095, 0.045, role=Role.THIRD, present=one)
    parts.can((0.11, house + 0.22, 0), 0.06, 0.13, role=Role.MAIN_PLAIN, mirror_x=True, present=two)


def rocket(parts: Parts, shape: Shape) -> None:
    """A rocket, slim or stout, on fins or boosters: a pointed or a round nose, one large porthole or two small ones."""
    radius, half = shape.between(0, 0.21, 0.28), shape.between(1, 0.39, 0.44)
    roundness, nose = shape.between(2, 0.5, 1.0), shape.between(3, 0.12, 0.155)
    high, fin = shape.between(4, 0.11, 0.17), shape.between(5, 0.075, 0.105)
    boosters, pointed, two = shape.above(6, 0.5), shape.above(7, 0.5), shape.above(3, 0.6)
    middle = half + 0.12
    shoulder, window = middle + half * 0.76, middle + half * 0.4
    slim, flat = (1.0, half / radius, 1.0), (1.0, 1.0, 0.35)

    parts.solid((0, middle, 0), radius, radius, role=Role.MAIN, edge=radius * roundness, scale=slim)
    parts.can((0, shoulder + nose, 0), radius * 0.42, nose, role=Role.THIRD, taper=radius * 0.36, present=pointed)
    cap = (0, shoulder - 0.02, 0)
    parts.ball(cap, radius * 0.82, role=Role.THIRD, cut=0.0, turn=UPSIDE_DOWN, present=~pointed)
    parts.ball((0, shoulder + radius * 0.82, 0), 0.055, role=Role.SECOND, scale=(1, 1.4, 1), present=~pointed)
    parts.can((0, 0.1, 0), radius * 0.6, 0.09, role=Role.THIRD, taper=-0.04)
    parts.ring((0, middle - half * 0.74, 0), radius * 0.78, 0.042, role=Role.THIRD)
    glass = radius * 0.93
    parts.ring((0, window, glass), 0.075, 0.028, role=Role.METAL, turn=UPRIGHT, present=~two)
    parts.can((0, window, glass), 0.075, 0.02, role=Role.GLOW, turn=UPRIGHT, present=~two)
    parts.can((0.085, window, glass - 0.02), 0.06, 0.02, role=Role.GLOW, turn=UPRIGHT, mirror_x=True, present=two)
    aside = radius * 0.7 + 0.02
    leg = (aside, high, aside)
    parts.can(
        leg, fin, high, role=Role.SECOND, taper=fin * 0.75, scale=flat, turn=(0, -45, 0),
        mirror_x=True, mirror_z=True, present=~boosters,
    )  # fmt: skip
    tank, tip = (aside, 0.2, aside), (aside, 0.43, aside)
    parts.can(tank, 0.07, 0.2, role=Role.SECOND, edge=0.03, mirror_x=True, mirror_z=True, present=boosters)
    parts.can(tip, 0.04, 0.06, role=Role.THIRD, taper=0.032, mirror_x=True, mirror_z=True, present=boosters)
