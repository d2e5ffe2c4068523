"""An evaluation, as values for a program and as text for a reader."""

from dataclasses import asdict, dataclass
from typing import Any

from dora_diffusion.evaluation.bootstrap import LEVEL, Interval
from dora_diffusion.evaluation.copies import THRESHOLD, repeats
from dora_diffusion.evaluation.figures import FIGURES

WIDTH = 50
CENTRAL = "subject"  # the group whose pictures are counted one by one


@dataclass(frozen=True)
class Picture:
    """One picture of the subject: ``likeness`` is None where none can be given."""

    prompt: str
    seed: int
    cosine: float
    likeness: float | None
    accepted: bool
    scene_right: bool
    copy_score: float


@dataclass(frozen=True)
class Evaluation:
    """How well one adapter learned its subject, and at what cost.

    Args:
        description: what the base was told for the second floor, and ``description_of`` whose words these are.
        figures: by the names of ``figures.FIGURES``.
        refusal: why there is no likeness, or None.
        cosines: mean raw cosine to the training photos by group of pictures; "ceiling" is that of photos.
        blind_to: what the eye cannot tell apart.
        notes: what a reader must know besides.
    """

    adapter: str
    subject: str
    kind: str
    description: str
    description_of: str
    figures: dict[str, Interval]
    refusal: str | None
    cosines: dict[str, float]
    ceiling_of: str
    gate: float
    pictures: tuple[Picture, ...]
    blind_to: tuple[str, ...]
    notes: tuple[str, ...]
    settings: dict[str, Any]

    @property
    def repeats(self) -> tuple[int, int]:
        """How many pictures of the subject repeat a training photo, and how many only its pose."""
        return repeats([p.copy_score for p in self.pictures], [p.scene_right for p in self.pictures])

    def to_json(self) -> dict[str, Any]:
        """As values that JSON has."""
        copies, poses = self.repeats
        counted = {"near_copies": copies, "repeated_poses": poses, "copy_threshold": THRESHOLD}
        return {**asdict(self), "interval_level": LEVEL, **counted}

    def to_text(self) -> str:
        """As a table with its footnotes."""
        rows = [f"{self.subject} (class {self.kind}), {self.adapter}", ""]
        rows.append(f"{'':<{WIDTH}}  figure  {LEVEL:.0%} interval".rstrip())
        for name, kind in FIGURES.items():
            if name in self.figures:
                rows.append(figure_row(kind.label, self.figures[name]))
            elif kind.on_scale and self.refusal:
                rows.append(f"{kind.label:<{WIDTH}}     none")
        return "\n".join([*rows, "", *self._footnotes()])

    def _footnotes(self) -> list[str]:
        count = len(self.pictures)
        copies, poses = self.repeats
        names = {"base_bare": f"base's {self.kind}", "base_worded": "base described", "subject": "subject"}
        cosines = [f"{names[name]} {self.cosines[name]:.3f}" for name in names if name in self.cosines]
        lines = [
            *([self.refusal] if self.refusal else []),
            f"Raw cosines to the training photos: {', '.join(cosines)}, "
            f"{self.ceiling_of} {self.cosines['ceiling']:.3f}.",
            f"Near-copies of a training photo: {copies} of {count} (nearest "
            f"{max(picture.copy_score for picture in self.pictures):.2f}, a copy from {THRESHOLD:.2f} on); "
            f"a photo's pose in the scene asked for: {poses}.",
            f"Not seen as a {self.kind}, counting 0: {sum(not picture.accepted for picture in self.pictures)} of "
            f"{count} (class probability under {self.gate:.2f}).",
        ]
        if self.description:
            lines.append(f'The description given to the base is "{self.description}" ({self.description_of}).')
        if self.blind_to:
            lines += ["What the eye is blind to:", *(f"  {sentence}" for sentence in self.blind_to)]
        return [*lines, *self.notes]


def figure_row(label: str, found: Interval) -> str:
    """One line of the table."""
    return f"{label:<{WIDTH}}  {found.value:>7.3f}  {found.low:.3f} to {found.high:.3f}"
