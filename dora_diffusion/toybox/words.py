"""The words of the toy world: what can be seen in it, and how captions say so."""

from functools import cache
from itertools import product

CLASSES = (
    "mug",
    "teapot",
    "vase",
    "cupcake",
    "lamp",
    "duck",
    "teddy bear",
    "cat",
    "penguin",
    "robot",
    "snowman",
    "car",
    "boat",
    "rocket",
    "mushroom",
    "cactus",
    "tree",
    "house",
    "chair",
    "shoe",
    "backpack",
)

# Display colours (sRGB, 0 to 1): far enough apart to be told by eye under every scene's light.
PALETTE = {
    "red": (0.86, 0.09, 0.10),
    "orange": (0.98, 0.45, 0.05),
    "yellow": (0.99, 0.80, 0.08),
    "green": (0.12, 0.62, 0.20),
    "teal": (0.04, 0.62, 0.62),
    "blue": (0.10, 0.28, 0.85),
    "purple": (0.48, 0.16, 0.72),
    "pink": (0.98, 0.45, 0.65),
    "white": (0.93, 0.93, 0.92),
    "black": (0.06, 0.06, 0.07),
    "brown": (0.42, 0.22, 0.10),
    "gray": (0.48, 0.50, 0.53),
}
COLORS = tuple(PALETTE)

PATTERNS = ("plain", "striped", "polka dot", "checkered", "two-tone")

STYLES = {
    "photo": ("a photo of", "a picture of", "a photograph of"),
    "pencil sketch": ("a pencil sketch of", "a sketch of", "a pencil drawing of"),
    "pixel art": ("pixel art of", "a pixel art image of"),
    "watercolor": ("a watercolor painting of", "a watercolor of"),
}

SCENES = {
    "studio": ("in a white studio", "on a white background"),
    "beach": ("on the beach", "on the sand by the sea"),
    "snow": ("in the snow", "on a snowy field"),
    "grass": ("on the grass", "in a green meadow"),
    "table": ("on a wooden table", "on a table"),
    "desert": ("in the desert", "on a sand dune"),
    "moon": ("on the moon", "in space on the moon"),
    "city": ("in a city at night", "in the city"),
    "underwater": ("underwater", "under the sea"),
    "brick": ("in front of a brick wall", "by a brick wall"),
    "kitchen": ("in the kitchen", "on a kitchen counter"),
    "sunset": ("at sunset", "at sunset by a lake"),
    "forest": ("in the forest", "in the woods"),
    "carpet": ("on a red carpet", "in a room with a red carpet"),
    "library": ("in a library", "in front of a bookshelf"),
    "garden": ("in a flower garden", "among flowers"),
}
# Where the training photos that we render are taken; no prompt that a subject is judged by names one of them.
REFERENCE_SCENES = ("studio", "table", "kitchen", "grass", "brick")

# Rare words without a meaning: a subject is taught under one of them. No caption of the base's training has them.
TRIGGERS = ("sks", "ohwx", "zwx", "qix", "vlb", "krz")

NAME_WORDS = 256  # names that are one token of the tokenizer
SPELLED_NAMES = 256  # names that it spells in letters


@cache
def names() -> tuple[str, ...]:
    """Names of single toys, as people and places have them: the base learns some hundred toys by name, so that a new
    word can become a name too. Three letters each; first those that are one token, then those that are spelled.
    """
    ends = "bdfgklmnprtvz"
    every = ["".join(letters) for letters in product(ends, "aeiou", ends)]
    known = {*_meaningful(), *TRIGGERS}
    free = [name for name in every if name not in known]
    stride = 367  # coprime to their number: neighbours in the list share no letters in order
    return tuple(free[stride * place % len(free)] for place in range(NAME_WORDS + SPELLED_NAMES))


def vocabulary() -> tuple[str, ...]:
    """Every word that is one token of the tokenizer: those of the world, names, the triggers, and a few small ones."""
    return tuple(sorted({*_meaningful(), *TRIGGERS, *names()[:NAME_WORDS]}))


def _meaningful() -> set[str]:
    phrases = [p for table in (STYLES, SCENES) for group in table.values() for p in group]
    called = [*CLASSES, *COLORS, *(p.replace("-", " ") for p in PATTERNS)]
    extra = "a an the and of in on at by with from toy small big old new front side back view close up"
    return {word for phrase in (*phrases, *called, extra) for word in phrase.split()}
