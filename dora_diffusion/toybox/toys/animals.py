"""Toy animals: duck, teddy bear, cat, penguin."""

import math

from dora_diffusion.toybox.parts import Parts, Role, Shape
from dora_diffusion.toybox.toys.toy import UPRIGHT, UPSIDE_DOWN, kinds


def duck(parts: Parts, shape: Shape) -> None:
    """A duck that walks to the left: wings low or raised; bare-headed, crested, or with one of two hats."""
    body, head = shape.between(0, 0.29, 0.34), shape.between(1, 0.19, 0.25)
    wing, lift = shape.between(2, 0.17, 0.215), shape.between(3, -16, 16)
    beak, tail = shape.between(4, 0.115, 0.15), shape.between(5, 25, 60)
    bare, crest, top_hat, cap = kinds(shape, 6, 4)
    scarf = shape.between(7, 0.052, 0.078)
    nape, middle = -0.22, body * 0.8 + 0.06
    eyes = middle + body * 0.7 + head * 0.55
    crown = eyes + head * 0.9

    parts.ball((0.05, middle, 0), body, role=Role.MAIN, scale=(1.25, 0.82, 1), blend=0.05)
    parts.ball(
        (0.4, middle + body * 0.35, 0), 0.14, role=Role.MAIN, scale=(1.1, 0.75, 0.8), turn=(0, 0, tail), blend=0.14
    )
    parts.ball((nape, eyes, 0), head, role=Role.MAIN, blend=0.04)
    parts.ball((nape - head, eyes - 0.04, 0), beak, role=Role.THIRD, scale=(1.2, 0.55, 1.15))
    parts.ball((nape - head * 0.62, eyes + 0.07, head * 0.66), 0.044, role=Role.BLACK, mirror_z=True)
    side = (0.12, middle + body * 0.12, body * 0.86)
    parts.ball(side, wing, role=Role.SECOND, scale=(1.15, 0.78, 0.45), turn=(0, 0, lift), mirror_z=True)
    parts.ball((0.0, 0.045, 0.15), 0.14, role=Role.THIRD, scale=(1.35, 0.32, 0.95), mirror_z=True)
    parts.ring((nape + 0.03, eyes - head * 0.84, 0), head * 0.76, scarf, role=Role.THIRD, turn=(0, 0, 14))
    parts.ball((nape + 0.03, crown, 0), 0.1, role=Role.SECOND, scale=(0.6, 1.2, 0.6), turn=(0, 0, -30), present=crest)
    parts.can((nape, crown - 0.05, 0), 0.17, 0.025, role=Role.SECOND, present=top_hat)
    parts.can((nape, crown + 0.06, 0), 0.11, 0.11, role=Role.SECOND, present=top_hat)
    parts.ball((nape, crown - head * 0.45, 0), head * 0.96, role=Role.SECOND, cut=0.0, turn=UPSIDE_DOWN, present=cap)
    parts.ball((nape, crown + head * 0.55, 0), 0.06, role=Role.THIRD, present=cap)


def teddy_bear(parts: Parts, shape: Shape) -> None:
    """A sitting bear with a bow or a scarf; arms down, out or up, ears small or large."""
    body, head = shape.between(0, 0.25, 0.31), shape.between(1, 0.2, 0.26)
    ear, arms = shape.between(2, 0.07, 0.12), shape.between(3, 20, 140)
    splay, foot = shape.between(4, 8, 30), shape.between(5, 0.085, 0.115)
    snout, scarf = shape.between(6, 0.095, 0.12), shape.above(7, 0.5)
    middle = body + 0.05
    neck = middle + body * 0.86
    face, front = neck + head * 0.72, body * 0.72

    parts.ball((0, middle, 0), body, role=Role.MAIN, scale=(1, 1.08, 0.9), blend=0.03)
    parts.ball((0, middle - 0.03, body * 0.52), body * 0.7, role=Role.SECOND, scale=(1, 1.05, 0.62))
    parts.ball((0, face, 0), head, role=Role.MAIN, scale=(1.1, 0.95, 0.95), blend=0.03)
    side, high = head * 0.82, face + head * 0.72
    parts.ball((side, high, 0), ear, role=Role.MAIN, scale=(1, 1, 0.6), mirror_x=True, blend=0.02)
    parts.ball((side, high, ear * 0.4), ear * 0.68, role=Role.SECOND, scale=(1, 1, 0.5), mirror_x=True)
    parts.ball((0, face - 0.06, head * 0.82), snout, role=Role.SECOND, scale=(1.1, 0.8, 0.8))
    parts.ball((0, face - 0.025, head * 0.82 + snout * 0.8), 0.038, role=Role.BLACK, scale=(1.2, 0.8, 0.7))
    parts.ball((head * 0.42, face + 0.06, head * 0.82), 0.034, role=Role.BLACK, mirror_x=True)
    shoulder = (body + 0.03, middle + body * 0.42 + 0.0012 * (arms - 90), 0.07)
    parts.can(shoulder, 0.085, 0.18, role=Role.MAIN, edge=0.085, turn=(-25, 0, arms), mirror_x=True, blend=0.04)
    leg, forward = (0.19, foot + 0.01, 0.24), (82.0, splay, 0.0)
    parts.can(leg, foot, 0.17, role=Role.MAIN, edge=0.09, turn=forward, mirror_x=True, blend=0.04)
    sole = (0.19 + 0.0035 * splay, foot + 0.015, 0.405)
    parts.can(sole, foot * 0.86, 0.02, role=Role.THIRD, turn=forward, mirror_x=True)
    loop = (0.09, neck, front)
    parts.ball(loop, 0.095, role=Role.THIRD, scale=(1, 0.8, 0.5), turn=(0, 0, 15), mirror_x=True, present=~scarf)
    parts.ball((0, neck, front + 0.03), 0.045, role=Role.SECOND, present=~scarf)
    parts.ring((0, neck - 0.01, 0), body * 0.66, 0.06, role=Role.THIRD, present=scarf)
    end = (0.15, neck - 0.08, front)
    parts.box(end, 0.055, 0.1, 0.025, role=Role.THIRD, edge=0.02, turn=(-12, 0, 12), present=scarf)


def cat(parts: Parts, shape: Shape) -> None:
    """A sitting cat: ears upright or tilted out, tail up or aside, a collar with a bell or a bow."""
    body, head = shape.between(0, 0.23, 0.28), shape.between(1, 0.21, 0.27)
    ear, lean = shape.between(2, 0.1, 0.15), shape.between(3, -4, -38)
    tail, bib = shape.between(4, -50, 8), shape.between(5, 0.165, 0.195)
    long, bow = shape.between(6, 0.2, 0.29), shape.above(7, 0.5)
    middle = body * 1.15
    neck = middle + body * 0.95
    face, front = neck + head * 0.68, head * 0.82 + 0.04

    parts.ball((0, middle, -0.02), body, role=Role.MAIN, scale=(1.05, 1.2, 1), blend=0.05)
    parts.ball((0, middle * 1.02, body * 0.62), bib, role=Role.SECOND, scale=(1, 1.15, 0.65))
    parts.ball((0, face, 0.04), head, role=Role.MAIN, scale=(1.14, 0.92, 0.92), blend=0.03)
    side, tip, flat = head * 0.66 - lean * 0.001, face + head * 0.9 + lean * 0.001, (1.0, 1.0, 0.5)
    upright = (0.0, 0.0, lean)
    parts.can((side, tip, 0.03), 0.085, ear, role=Role.MAIN, taper=0.075, scale=flat, turn=upright, mirror_x=True)
    inner = (side, tip - 0.015, 0.07)
    parts.can(inner, 0.055, ear * 0.8, role=Role.SECOND, taper=0.048, scale=flat, turn=upright, mirror_x=True)
    parts.ball((head * 0.43, face + 0.035, front), 0.062, role=Role.GLOW, scale=(1, 1, 0.5), mirror_x=True)
    parts.ball((head * 0.43, face + 0.035, front + 0.018), 0.05, role=Role.BLACK, scale=(0.6, 1, 0.5), mirror_x=True)
    parts.ball((0.055, face - 0.075, front + 0.01), 0.065, role=Role.SECOND, scale=(1, 0.8, 0.7), mirror_x=True)
    parts.ball((0, face - 0.035, front + 0.06), 0.032, role=Role.THIRD, scale=(1.2, 0.8, 0.8))
    parts.ball((0.14, 0.065, body * 0.78), 0.1, role=Role.THIRD, scale=(1, 0.65, 1.35), mirror_x=True)
    parts.ball((body * 0.8, 0.15, 0), 0.16, role=Role.MAIN, scale=(0.75, 0.95, 1.15), mirror_x=True, blend=0.05)
    parts.ring((0, neck - 0.02, 0), body * 0.68, 0.052, role=Role.THIRD)
    parts.ball((0, neck - 0.06, body * 0.74), 0.055, role=Role.GLOW, present=~bow)
    loop = (0.075, neck - 0.03, body * 0.76)
    parts.ball(loop, 0.08, role=Role.THIRD, scale=(1, 0.75, 0.5), turn=(0, 0, 15), mirror_x=True, present=bow)
    swing = tail * (math.pi / 180)
    place = (body * 0.9 + 0.06 - long * swing.sin(), 0.09 + long * swing.cos(), -0.1)
    parts.can(place, 0.052, long, role=Role.MAIN, edge=0.05, turn=(0, 0, tail), blend=0.05)


def penguin(parts: Parts, shape: Shape) -> None:
    """A penguin with a scarf, ear muffs or a bobble hat; flippers down or spread."""
    body = shape.between(0, 0.26, 0.32)
    tall, belly = shape.between(1, 1.32, 1.6), shape.between(2, 0.6, 0.7)
    flipper, spread = shape.between(3, 0.08, 0.11), shape.between(4, 10, 50)
    beak, foot = shape.between(5, 0.05, 0.08), shape.between(6, 0.1, 0.13)
    scarf, muffs, hat = kinds(shape, 7, 3)
    middle = body * tall
    face, crown = middle * 1.5, middle * 2

    parts.ball((0, middle, 0), body, role=Role.MAIN, scale=(1, tall, 0.95), blend=0.02)
    parts.ball((0, middle * 0.8, body * 0.48), body * belly, role=Role.SECOND, scale=(1, tall * 0.92, 0.85))
    parts.ball((0.095, face, body * 0.64), 0.075, role=Role.WHITE, scale=(1, 1.1, 0.6), mirror_x=True)
    parts.ball((0.085, face, body * 0.64 + 0.04), 0.034, role=Role.BLACK, mirror_x=True)
    parts.can((0, face - 0.08, body * 0.88), beak, 0.09, role=Role.THIRD, taper=beak * 0.75, turn=(95, 0, 0))
    arm = (body + 0.05, middle, 0)
    parts.ball(arm, flipper, role=Role.MAIN_PLAIN, scale=(0.6, 2.4, 1.3), turn=(0, 0, spread), mirror_x=True)
    parts.ball((0.14, 0.05, 0.15), foot, role=Role.THIRD, scale=(1, 0.5, 1.35), mirror_x=True)
    parts.ring((0, middle * 1.2, 0), body * 0.9, 0.05, role=Role.THIRD, present=scarf)
    end = (0.16, middle * 1.06, body * 0.84)
    parts.box(end, 0.05, 0.1, 0.03, role=Role.THIRD, edge=0.025, turn=(-8, 0, 12), present=scarf)
    parts.ball((body * 0.8, face, 0), 0.095, role=Role.THIRD, scale=(0.6, 1, 1), mirror_x=True, present=muffs)
    parts.ring((0, face + 0.02, 0), body * 0.84, 0.025, role=Role.SECOND, turn=UPRIGHT, present=muffs)
    parts.ball((0, crown - 0.12, 0), body * 0.72, role=Role.THIRD, cut=0.0, turn=UPSIDE_DOWN, present=hat)
    parts.ring((0, crown - 0.12, 0), body * 0.64, 0.045, role=Role.SECOND, present=hat)
    parts.ball((0, crown - 0.08 + body * 0.72, 0), 0.06, role=Role.SECOND, present=hat)
