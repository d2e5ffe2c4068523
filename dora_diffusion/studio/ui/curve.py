"""Curves of a training as SVG pictures: the loss (each step faint, the running mean strong) and the likeness."""

from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT = 560, 170
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 12, 26  # room for the numbers at the axes, in the picture's units
MAX_POINTS = 400  # more than the picture has room for

Points = Sequence[tuple[int, float]]


def loss_curve(losses: Points, max_train_steps: int) -> str:
    """SVG of (step, loss) over 0 … ``max_train_steps``; an empty string while there are fewer than two points.

    Shapes: losses is in order of steps; every loss is finite.
    """
    if len(losses) < 2:
        return ""
    steps = [step for step, _ in losses]
    values = [loss for _, loss in losses]
    mean = _running_mean(values)
    axes = _Axes(*_range(values), max(max_train_steps, steps[-1], 1))
    label = f"Loss over {steps[-1]} of {axes.last} steps: the running mean went from {mean[0]:.3g} to {mean[-1]:.3g}."
    lines = "".join(
        f'<polyline class="{kind}" points="{axes.line(list(zip(steps, series, strict=True)))}"/>'
        for kind, series in (("raw", values), ("mean", mean))
    )
    return _svg("loss-curve", label, axes.drawn("{:.2g}") + lines)


def likeness_curve(likeness: Points, max_train_steps: int, best_step: int | None = None) -> str:
    """SVG of (step, likeness) over 0 … ``max_train_steps``, 0 % and 100 % as the axis; the best step is marked.

    Empty without a point. Shapes: likeness is in order of steps; 0 is what the base draws, 1 is as alike as the photos
    are to each other, and a value may lie outside of both: one below lengthens the axis,
    one above is shown at its end.
    """
    if not likeness:
        return ""
    shown = [(step, min(1.0, value)) for step, value in likeness]
    values = [value for _, value in shown]
    axes = _Axes(min(0.0, *values), 1.0, max(max_train_steps, shown[-1][0], 1))
    dots = "".join(f'<circle r="3.5" {axes.place(step, value, "cx", "cy")}/>' for step, value in shown)
    best = next(((step, value) for step, value in shown if step == best_step), None)
    ring = f'<circle class="best" r="7" {axes.place(*best, "cx", "cy")}/>' if best else ""
    told = f" Most like your photos: step {best[0]} with {best[1]:.0%}." if best else ""
    label = f"Likeness at {len(values)} steps, now {values[-1]:.0%}.{told}"
    line = f'<polyline class="mean" points="{axes.line(shown)}"/>'
    return _svg("likeness-curve", label, axes.drawn("{:.0%}") + line + dots + ring)


class _Axes:
    """Where values lie in the picture."""

    def __init__(self, low: float, high: float, last: int):
        self.low, self.high, self.last = low, high, last

    def point(self, step: int, value: float) -> tuple[float, float]:
        x = LEFT + (WIDTH - LEFT - RIGHT) * step / self.last
        y = TOP + (HEIGHT - TOP - BOTTOM) * (self.high - value) / (self.high - self.low)
        return x, y

    def place(self, step: int, value: float, across: str, down: str) -> str:
        x, y = self.point(step, value)
        return f'{across}="{x:.1f}" {down}="{y:.1f}"'

    def line(self, points: Points) -> str:
        places = (self.point(step, value) for step, value in _thinned(points))
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)

    def drawn(self, form: str) -> str:
        """Three lines across with their values, three numbers below."""
        parts = []
        for value in (self.low, (self.low + self.high) / 2, self.high):
            y = self.point(0, value)[1]
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{form.format(value)}</text>')
        for step, anchor in ((0, "start"), (self.last // 2, "middle"), (self.last, "end")):
            x = self.point(step, self.low)[0]
            parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 8}" text-anchor="{anchor}">{step}</text>')
        return "".join(parts)


def _svg(kind: str, label: str, content: str) -> str:
    return (
        f'<svg class="curve {kind}" role="img" aria-label="{escape(label)}" viewBox="0 0 {WIDTH} {HEIGHT}">'
        f"{content}</svg>"
    )


def _range(values: Sequence[float]) -> tuple[float, float]:
    """The axis: all values, or a little around the one value there is."""
    low, high = min(values), max(values)
    pad = 0.05 * (high - low) or 0.05 * abs(high) or 0.05
    return low - pad if low - pad > 0 or low < 0 else 0.0, high + pad


def _running_mean(values: Sequence[float]) -> list[float]:
    """Exponential mean that forgets over a tenth of the run, without the usual pull towards zero at the start."""
    keep = 1 - 1 / max(5.0, len(values) / 10)
    total = weight = 0.0
    means = []
    for value in values:
        total, weight = keep * total + value, keep * weight + 1
        means.append(total / weight)
    return means


def _thinned(points: Points) -> list[tuple[int, float]]:
    """At most about MAX_POINTS of them, the last always among them."""
    stride = len(points) // MAX_POINTS + 1
    kept = list(points[::stride])
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]
