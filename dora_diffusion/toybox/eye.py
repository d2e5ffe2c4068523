"""The eye: a small network that says what a picture of the toy world shows, and how alike two toys are.

It is trained on renders by ``recipe.eye_stage`` and tested by ``recipe.eye_acceptance``; what it stays blind to is
written beside its weights.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dora_diffusion.errors import ModelError
from dora_diffusion.toybox.words import CLASSES, COLORS, SCENES, STYLES

SIZE = 128  # side in pixels of what the network looks at
NOTHING = len(CLASSES)  # the class of a picture without a toy
EMBEDDING = 128
WIDTHS = (32, 64, 120, 176)  # channels at 1/2, 1/4, 1/8 and 1/16 of the side
DEPTHS = (1, 2, 2, 1)
PARTS = 8  # places of a toy that the embedding looks at
GLANCES = 4  # places of the picture that the heads look at

CONFIG_FILE = "eye.json"
WEIGHTS_FILE = "eye.safetensors"
DEFAULT_FOLDER = Path(__file__).parent / "model" / "eye"
_BATCH = 256
_GROUP = 8  # channels normalised together


class Seen(NamedTuple):
    """What the eye says of ``n`` pictures.

    ``embedding (n, EMBEDDING)`` has unit length: the cosine of two is the likeness of the toys. ``class_logits`` has
    one column more than there are classes: ``NOTHING``. ``scene_logits``, ``style_logits`` and ``color_logits`` (the
    toy's main colour) are in the order of ``words``.
    """

    embedding: Tensor
    class_logits: Tensor
    scene_logits: Tensor
    style_logits: Tensor
    color_logits: Tensor


class _Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut. Only the branch is normalised, so that the stream keeps absolute colours
    (a normalised stem would see a toy's colour relative to its background).
    """

    def __init__(self, width_in: int, width: int, stride: int):
        super().__init__()
        self.norm1 = nn.GroupNorm(width_in // _GROUP, width_in)
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1)
        self.norm2 = nn.GroupNorm(width // _GROUP, width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1)
        nn.init.zeros_(self.conv2.weight)  # every block starts as its shortcut
        changed = stride > 1 or width != width_in
        shrink = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.shortcut = nn.Sequential(shrink, nn.Conv2d(width_in, width, 1)) if changed else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        branch: Tensor = self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))
        shortcut: Tensor = self.shortcut(x)
        return shortcut + branch


class _Looks(nn.Module):
    """Attention pooling: each of ``count`` learned looks finds its place and says what is there and where it is, so
    that a part's colour and an emblem's place are kept apart (a plain average would mix them).
    """

    def __init__(self, width: int, side: int, count: int):
        super().__init__()
        self.score = nn.Linear(width, count)
        self.bias = nn.Parameter(torch.zeros(side * side, count))
        steps = torch.linspace(-1, 1, side)
        places = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), -1).reshape(-1, 2)
        self.register_buffer("places", places, persistent=False)
        self.places: Tensor
        self.features = count * (width + 2)

    def forward(self, tokens: Tensor) -> Tensor:
        """``(n, side * side, width)`` to ``(n, features)``."""
        weights = (self.score(tokens) + self.bias).softmax(1).transpose(1, 2)
        what = weights.to(tokens.dtype) @ tokens
        where = weights @ self.places.to(weights.dtype)
        return torch.cat([what.flatten(1), where.flatten(1).to(what.dtype)], 1)


class Eye(nn.Module):
    """A residual network with attention pooling.

    Args:
        widths: channels at each halving of the side, multiples of 8.
        depths: residual blocks at each.
        size: side of the picture it looks at, a multiple of 16.
    """

    def __init__(self, widths: Sequence[int] = WIDTHS, depths: Sequence[int] = DEPTHS, size: int = SIZE):
        super().__init__()
        self.widths, self.depths, self.size = tuple(widths), tuple(depths), size
        self.stem = nn.Conv2d(3, widths[0], 5, 2, 2)
        blocks = [_Block(widths[0], widths[0], 1) for _ in range(depths[0])]
        for before, width, depth in zip(widths, widths[1:], depths[1:], strict=False):
            blocks += [_Block(before if i == 0 else width, width, 2 if i == 0 else 1) for i in range(depth)]
        self.blocks = nn.Sequential(*blocks)
        last, side = widths[-1], size // 2 ** len(widths)
        self.norm = nn.LayerNorm(last)
        self.parts = _Looks(last, side, PARTS)
        self.identity = nn.Sequential(nn.Linear(self.parts.features, 256), nn.SiLU(), nn.Linear(256, EMBEDDING))
        self.glances = _Looks(last, side, GLANCES)
        seen = self.glances.features + last
        self.class_head = nn.Linear(seen, len(CLASSES) + 1)
        self.scene_head = nn.Linear(seen, len(SCENES))
        self.style_head = nn.Linear(seen, len(STYLES))
        self.color_head = nn.Linear(seen, len(COLORS))

    def forward(self, images: Tensor) -> Seen:
        """``(n, 3, size, size)`` in 0 to 1; differentiable. ``see`` takes any size."""
        tokens = self.norm(self.blocks(self.stem(images * 4 - 2)).flatten(2).transpose(1, 2))
        embedding = F.normalize(self.identity(self.parts(tokens)).float(), dim=1)
        glance = torch.cat([self.glances(tokens), tokens.mean(1)], 1)
        heads = (self.class_head, self.scene_head, self.style_head, self.color_head)
        return Seen(embedding, *(head(glance).float() for head in heads))

    @torch.no_grad()
    def see(self, images: Tensor) -> Seen:
        """What the eye says of pictures of any size.

        Args:
            images: ``(n, 3, height, width)`` in 0 to 1, on any device; brought to ``size`` x ``size``.

        Raises:
            ModelError: the tensor is no batch of pictures.
        """
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise ModelError(
                "The eye takes float pictures of shape (n, 3, height, width) in 0 to 1, "
                f"not {images.dtype} of shape {tuple(images.shape)}."
            )
        place = self.stem.weight.device
        seen = [self(resized(batch.to(place, torch.float32), self.size)) for batch in images.split(_BATCH)]
        return Seen(*(torch.cat(columns) for columns in zip(*seen, strict=True)))


def resized(images: Tensor, size: int) -> Tensor:
    """``(n, 3, size, size)``: the pictures brought to the eye's size, unchanged where they have it."""
    if images.shape[-2:] == (size, size):
        return images
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True, align_corners=False).clamp(0, 1)


def save_eye(eye: Eye, folder: Path) -> None:
    """Write the weights in fp16 and what is needed to read them."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: value.detach().to("cpu", torch.float16).contiguous() for name, value in eye.state_dict().items()},
        folder / WEIGHTS_FILE,
    )
    config = {"size": eye.size, "widths": eye.widths, "depths": eye.depths, "words": _words()}
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def load_eye(path: Path | None = None, device: str | torch.device = "cpu") -> Eye:
    """The eye in ``path``, a folder; by default the one that comes with the package. In fp32, ready to see.

    Raises:
        ModelError: there is no eye, its files are damaged, or it was trained on other words.
    """
    folder = DEFAULT_FOLDER if path is None else path
    config = _read_config(folder)
    eye = _empty_eye(config, folder)
    eye.load_state_dict(_read_weights(folder, eye))
    return eye.to(device).eval().requires_grad_(False)


def _words() -> dict[str, list[str]]:
    """What the columns of the heads mean."""
    return {"classes": list(CLASSES), "scenes": list(SCENES), "styles": list(STYLES), "colors": list(COLORS)}


def _read_config(folder: Path) -> dict[str, Any]:
    missing = [name for name in (CONFIG_FILE, WEIGHTS_FILE) if not (folder / name).is_file()]
    if missing:
        raise ModelError(
            f"There is no eye in {folder}: {' and '.join(missing)} missing. "
            "Give a folder that the eye stage of the toybox recipe wrote, or install dora-diffusion again."
        )
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(folder / CONFIG_FILE, "it is not JSON") from error
    if not isinstance(config, dict) or not {"size", "widths", "depths", "words"} <= set(config):
        raise _damaged(folder / CONFIG_FILE, "it lacks size, widths, depths or words")
    for kind, words in _words().items():
        if not isinstance(config["words"], dict) or config["words"].get(kind) != words:
            raise ModelError(
                f"The eye in {folder} was trained on other {kind} than this version of dora-diffusion has. "
                "Use the eye that belongs to this version, or train it again."
            )
    return config


def _empty_eye(config: dict[str, Any], folder: Path) -> Eye:
    try:
        return Eye(config["widths"], config["depths"], config["size"])
    except (TypeError, ValueError, IndexError, ZeroDivisionError, RuntimeError) as error:
        raise _damaged(folder / CONFIG_FILE, "its size, widths or depths make no network") from error


def _read_weights(folder: Path, eye: Eye) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = folder / WEIGHTS_FILE
    try:
        weights = load_file(file)
    except (OSError, SafetensorError) as error:
        raise _damaged(file, "it is not a safetensors file") from error
    expected = {name: value.shape for name, value in eye.state_dict().items()}
    found = {name: value.shape for name, value in weights.items()}
    if found != expected:
        odd = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
        raise _damaged(file, f"{len(odd)} of its tensors are missing, unknown or of another shape, {odd[0]} the first")
    if not all(bool(value.isfinite().all()) for value in weights.values()):
        raise _damaged(file, "it holds numbers that are not finite")
    return {name: value.float() for name, value in weights.items()}


def _damaged(file: Path, why: str) -> ModelError:
    return ModelError(f"The eye's file {file} is damaged: {why}. Copy it again, or train the eye again.")
