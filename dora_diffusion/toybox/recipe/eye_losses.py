"""What the eye is taught by: telling toys apart, naming what is seen, and keeping every detail in the embedding."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dora_diffusion.toybox.emblems import EMBLEMS
from dora_diffusion.toybox.eye import EMBEDDING, NOTHING, Seen
from dora_diffusion.toybox.recipe.eye_augment import IGNORED, PHOTO, is_outline
from dora_diffusion.toybox.recipe.eye_pool import Batch
from dora_diffusion.toybox.words import CLASSES, COLORS, PATTERNS, STYLES

_SMOOTHING = 0.02  # of the heads' labels
_COLORLESS = tuple(STYLES).index("pencil sketch")


class Details(nn.Module):
    """Reads a toy's details out of its embedding: a teacher of the embedding, thrown away after training."""

    def __init__(self) -> None:
        super().__init__()
        self.colors = nn.Linear(EMBEDDING, 3 * len(COLORS))
        self.pattern = nn.Linear(EMBEDDING, len(PATTERNS))
        self.emblem = nn.Linear(EMBEDDING, len(EMBLEMS))
        self.odd = nn.Linear(EMBEDDING, 2)
        self.shape = nn.Linear(EMBEDDING, 8 * len(CLASSES))  # what a number does depends on the class

    def loss(self, embedding: Tensor, batch: Batch) -> Tensor:
        """The mean of the five tasks' losses over toys of families."""
        known = batch.toy >= 0
        seen, truth = embedding[known] * EMBEDDING**0.5, batch.labels.take(known)
        rows = torch.arange(len(seen), device=seen.device)
        shape = self.shape(seen).unflatten(1, (len(CLASSES), 8))[rows, truth.kind]
        tasks = [
            F.cross_entropy(self.colors(seen).unflatten(1, (3, len(COLORS))).transpose(1, 2), truth.colors),
            F.cross_entropy(self.pattern(seen), truth.pattern),
            F.cross_entropy(self.emblem(seen), truth.emblem),
            F.cross_entropy(self.odd(seen), truth.odd),
            12 * F.mse_loss(shape, truth.shape - 0.5),  # 1 for knowing nothing
        ]
        return torch.stack(tasks).mean()


def identity_loss(embedding: Tensor, toy: Tensor, family: Tensor, temperature: float, sibling_weight: float) -> Tensor:
    """Each picture finds the other pictures of its toy among all of the batch.

    Args:
        embedding: ``(n, d)`` of unit length.
        toy, family: ``(n,)``; -1: belongs to no family and is only a negative.
        temperature: the cosines are divided by it.
        sibling_weight: how many strangers a sibling counts for.

    Source: P. Khosla et al., Supervised Contrastive Learning, 2020.
    """
    logits = embedding @ embedding.T / temperature
    own = torch.eye(len(toy), dtype=torch.bool, device=toy.device)
    same = (toy[:, None] == toy) & (toy >= 0) & ~own
    siblings = (family[:, None] == family) & (family >= 0) & (toy[:, None] != toy)
    # A weight inside the softmax's sum is a logarithm added to the logit.
    logits = torch.where(siblings, logits + torch.as_tensor(sibling_weight).log(), logits)
    logits = logits.masked_fill(own, -torch.inf)
    chances = logits - logits.logsumexp(1, keepdim=True)
    count = same.sum(1)
    found = torch.where(same, chances, torch.zeros_like(chances)).sum(1) / count.clamp(min=1)
    anchors = count > 0
    return -found[anchors].mean()


def found_share(embedding: Tensor, toy: Tensor) -> Tensor:
    """Share of family pictures whose nearest picture in the batch shows the same toy."""
    cosines = (embedding @ embedding.T).fill_diagonal_(-2)
    known = toy >= 0
    return (toy[cosines.argmax(1)] == toy)[known].float().mean()


def head_losses(seen: Seen, batch: Batch, replaced: Tensor, decoys: Tensor) -> dict[str, Tensor]:
    """Cross entropies of the four heads.

    Args:
        replaced: ``(n,)`` booleans, pictures whose scene is not their own any more.
        decoys: ``(d,)`` kinds of the last pictures, which show no toy.
    """
    truth, first = batch.labels, len(replaced) - len(decoys)
    denied = torch.where(is_outline(decoys), IGNORED, NOTHING)
    ignored = torch.full_like(denied, IGNORED)

    def with_decoys(labels: Tensor, instead: Tensor) -> Tensor:
        return torch.cat([labels[:first], instead])

    colors = torch.where(truth.style == _COLORLESS, IGNORED, truth.colors[:, 0])
    labels = {
        "class": (seen.class_logits, with_decoys(truth.kind, denied)),
        "scene": (seen.scene_logits, with_decoys(truth.scene.masked_fill(replaced, IGNORED), ignored)),
        "style": (seen.style_logits, with_decoys(truth.style, ignored)),
        "color": (seen.color_logits, with_decoys(colors, ignored)),
    }
    return {
        name: F.cross_entropy(logits, wanted, ignore_index=IGNORED, label_smoothing=_SMOOTHING)
        for name, (logits, wanted) in labels.items()
    }


def identity_rows(batch: Batch, decoys: int) -> Tensor:
    """``(n,)`` booleans: the pictures that the identity is learned from. Sketches and paintings are not among them:
    they lack the colours that tell toys apart.
    """
    rows = batch.labels.style == PHOTO
    if decoys:
        rows[-decoys:] = True
    return rows
