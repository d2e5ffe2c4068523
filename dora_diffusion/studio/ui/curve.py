"""The loss curve as an SVG picture: what each step said, faint, and its running mean, strong."""

from collections.abc import Sequence

WIDTH, HEIGHT = 560, 180
LEFT, RIGHT, TOP, BOTTOM = 62, 12, 12, 26  # room for the numbers at the axes, in the picture's units
MAX_POINTS = 400  # more than the picture has room for


def loss_curve(losses: Sequence[tuple[int, float]], max_train_steps: int) -> str:
    """SVG of (step, loss) over 0 … ``max_train_steps``; an empty string while there are fewer than two points.

    Shapes: losses is in order of steps; every loss is finite.
    """
    if len(losses) < 2:
        return ""
    steps = [step for step, _ in losses]
    values = [loss for _, loss in losses]
    last = max(max_train_steps, steps[-1], 1)
    low, high = _range(values)
    mean = _running_mean(values)

    def place(step: int, value: float) -> str:
        x = LEFT + (WIDTH - LEFT - RIGHT) * step / last
        y = TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)
        return f"{x:.1f},{y:.1f}"

    def line(series: list[float]) -> str:
        points = _thinned(list(zip(steps, series, strict=True)))
        return " ".join(place(step, value) for step, value in points)

    label = f"Loss over {steps[-1]} of {last} steps: the running mean went from {mean[0]:.3g} to {mean[-1]:.3g}."
    return (
        f'<svg class="loss-curve" role="img" aria-label="{label}" viewBox="0 0 {WIDTH} {HEIGHT}">'
        f"{_axes(low, high, last)}"
        f'<polyline class="raw" points="{line(values)}"/><polyline class="mean" points="{line(mean)}"/></svg>'
    )


def _axes(low: float, high: float, last: int) -> str:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for value in (low, (low + high) / 2, high):
        y = TOP + (bottom - TOP) * (high - value) / (high - low)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.2g}</text>')
    for step, anchor in ((0, "start"), (last // 2, "middle"), (last, "end")):
        x = LEFT + (right - LEFT) * step / last
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 8}" text-anchor="{anchor}">{step}</text>')
    return "".join(parts)


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


def _thinned(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """At most about MAX_POINTS of them, the last always among them."""
    stride = len(points) // MAX_POINTS + 1
    kept = points[::stride]
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]
