"""A verification in words."""

from collections import Counter
from collections.abc import Sequence

from dora_diffusion.formats.verify.compare import LayerCheck, Verification

SHOWN = 2  # reasons a reader


def table(found: Sequence[Verification]) -> str:
    """One line a reader, then a line on what each of them loses."""
    head = ("reader", "verdict", "layers", "worst of |W'|", "of |W'-W0|", "rounding", "left over")
    rows = [head, *(_row(one) for one in found)]
    widths = [max(len(row[k]) for row in rows) for k in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lost = {one.reader: reasons for one in found if (reasons := notes(one))}
    lines += [f"{reader}: {'; '.join(reasons[:SHOWN])}." for reader, reasons in lost.items()]
    return "\n".join(lines)


def notes(found: Verification) -> list[str]:
    """What a reader loses, in clauses, the gravest first: why it refuses, by which rule, the worst layer, the keys."""
    if found.refusal:
        return [f"loads nothing: {found.refusal}"]
    said = [] if found.is_right else list(found.remarks)
    if found.wrong and not is_untouched(found):
        said.append(f"{len(found.wrong)} layers are not right, the worst {_layer(found.wrong[0])}")
    # Ours are notes to ourselves: no other program is meant to read them.
    kinds = Counter(_kind(key) for key in found.left_over if not key.startswith("dora_diffusion."))
    if kinds and not is_untouched(found):
        said.append(f"leaves over {', '.join(f'{count} x {kind}' for kind, count in kinds.items())}")
    return said


def first_fault(found: Verification) -> str:
    """The worst that is wrong, in a clause: why it loads nothing, else the layer that is furthest off."""
    if found.refusal:
        return f"loads nothing: {found.refusal}"
    return _layer(found.wrong[0]) if found.wrong else "no layer is read"


def _row(found: Verification) -> tuple[str, ...]:
    if found.refusal:
        return (found.reader, "refused", f"0/{found.expected}", "-", "-", "-", str(len(found.left_over)))
    if is_untouched(found):
        return (found.reader, "not read", f"0/{found.expected}", "-", "-", "-", str(len(found.left_over)))
    return (
        found.reader,
        "right" if found.is_right else "WRONG",
        f"{found.covered}/{found.expected}",
        f"{found.worst_error:.1e}",
        f"{found.worst_of_change:.1e}",
        f"{found.worst_rounding:.1e}" if found.worst_rounding else "-",
        str(len(found.left_over)),
    )


def is_untouched(found: Verification) -> bool:
    """Whether the reader takes nothing for any layer."""
    return bool(found.layers) and not any(layer.taken for layer in found.layers)


def _layer(layer: LayerCheck) -> str:
    if layer.fault:
        return f"{layer.name}: stays as it was, {layer.fault}"
    if layer.expected and not layer.taken:
        return f"{layer.name}: nothing of it is read"
    if not layer.expected:
        return f"{layer.name}: changed by {layer.error:.1e} of |W|, and the adapter does not have it"
    return f"{layer.name}: off by {layer.error:.1e} of |W'|, {layer.of_change or 0:.1e} of its change"


def _kind(key: str) -> str:
    """What a key is, without its layer: ``.dora_scale``, ``.lora_magnitude_vector.weight``."""
    for mark in (".lora_", "_lora.", ".lora.", ".dora_scale", ".alpha", ".diff", ".bundle_emb"):
        if mark in key:
            return key[key.index(mark) :]
    return key
