"""The classes of toys, in the order of ``words.CLASSES``."""

from collections.abc import Mapping
from types import MappingProxyType

from dora_diffusion.toybox.toys.animals import cat, duck, penguin, teddy_bear
from dora_diffusion.toybox.toys.figures import robot, snowman
from dora_diffusion.toybox.toys.plants import cactus, mushroom, tree
from dora_diffusion.toybox.toys.tableware import cupcake, mug, teapot, vase
from dora_diffusion.toybox.toys.things import backpack, chair, house, lamp, shoe
from dora_diffusion.toybox.toys.toy import Toy
from dora_diffusion.toybox.toys.vehicles import boat, car, rocket

__all__ = ["TOYS", "Toy"]

TOYS: Mapping[str, Toy] = MappingProxyType(
    {
        "mug": Toy(mug, height=0.75, sticker=(0.0, 0.36, 0.06, 0.04), facing=25.0),
        "teapot": Toy(teapot, height=0.9, sticker=(0.0, 0.36, 0.1, 0.06)),
        "vase": Toy(vase, height=1.0, sticker=(0.0, 0.37, 0.05, 0.05)),
        "cupcake": Toy(cupcake, height=0.85, sticker=(0.0, 0.16, 0.05, 0.0)),
        "lamp": Toy(lamp, height=1.0, sticker=(0.0, 0.77, 0.08, 0.03)),
        "duck": Toy(duck, height=0.85, sticker=(0.12, 0.3, 0.06, 0.03), facing=-25.0),
        "teddy bear": Toy(teddy_bear, height=0.95, sticker=(0.0, 0.29, 0.04, 0.03)),
        "cat": Toy(cat, height=0.95, sticker=(0.0, 0.3, 0.03, 0.02)),
        "penguin": Toy(penguin, height=0.9, sticker=(0.0, 0.29, 0.04, 0.03)),
        "robot": Toy(robot, height=1.05, sticker=(0.0, 0.42, 0.07, 0.04)),
        "snowman": Toy(snowman, height=1.1, sticker=(0.0, 0.25, 0.06, 0.03)),
        "car": Toy(car, height=0.65, sticker=(0.0, 0.27, 0.03, 0.01), facing=-25.0, sideways=True),
        "boat": Toy(boat, height=0.95, sticker=(0.0, 0.24, 0.15, 0.02), facing=-20.0, sideways=True),
        "rocket": Toy(rocket, height=1.05, sticker=(0.0, 0.45, 0.03, 0.04)),
        "mushroom": Toy(mushroom, height=0.9, sticker=(0.0, 0.19, 0.03, 0.03)),
        "cactus": Toy(cactus, height=1.0, sticker=(0.0, 0.15, 0.04, 0.0)),
        "tree": Toy(tree, height=1.05, sticker=(0.0, 0.63, 0.05, 0.04)),
        "house": Toy(house, height=1.0, sticker=(0.13, 0.23, 0.03, 0.02)),
        "chair": Toy(chair, height=1.0, sticker=(0.0, 0.78, 0.06, 0.04)),
        "shoe": Toy(shoe, height=0.6, sticker=(0.16, 0.28, 0.05, 0.03), facing=-20.0, sideways=True),
        "backpack": Toy(backpack, height=0.95, sticker=(0.0, 0.2, 0.02, 0.01)),
    }
)
