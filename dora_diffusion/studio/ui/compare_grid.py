"""A comparison as an accessible table: what changes stands over the columns and before the rows."""

from html import escape
from typing import TYPE_CHECKING

from dora_diffusion.studio.ui.html import link_to, picture

if TYPE_CHECKING:
    from dora_diffusion.studio.comparisons import Cell, Grid

CAPTIONS = {
    "base": "The base alone against the subject",
    "strengths": "Strengths",
    "seeds": "Seeds",
    "checkpoints": "Checkpoints",
}


def grid_html(grid: "Grid", drawn: dict[tuple[int, int], "Cell"]) -> str:
    """HTML of the grid with what was drawn of it so far; the cells to come are told as such."""
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in grid.columns)
    rows = "".join(_row(grid, number, drawn) for number in range(len(grid.rows)))
    prompt = escape(grid.cells[0].order.prompt)
    return (
        f'<div class="compare-scroll" tabindex="0" role="region" aria-label="Comparison">'
        f'<table id="compare-table" data-cells="{len(grid.cells)}" data-drawn="{len(drawn)}">'
        f"<caption>{CAPTIONS[grid.mode]}: <q>{prompt}</q></caption>"
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _row(grid: "Grid", row: int, drawn: dict[tuple[int, int], "Cell"]) -> str:
    cells = "".join(_cell(grid, row, column, drawn.get((row, column))) for column in range(len(grid.columns)))
    head = f'<th scope="row">{escape(grid.rows[row])}</th>' if grid.rows[row] else "<td></td>"
    return f"<tr>{head}{cells}</tr>"


def _cell(grid: "Grid", row: int, column: int, cell: "Cell | None") -> str:
    if cell is None or cell.path is None:
        return '<td><div class="to-come"><span class="sr-only">not drawn yet</span></div></td>'
    alt = "; ".join(filter(None, (cell.order.prompt, grid.rows[row], grid.columns[column])))
    shown = picture(cell.thumb or cell.path, alt)
    return f'<td><a href="{escape(link_to(cell.path))}" target="_blank" rel="noopener">{shown}</a></td>'
