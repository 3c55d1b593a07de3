"""Rows of cells under headings, no wider than the terminal: columns that do not fit are left out. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.cells import cell_len

_NARROWEST = 20
_MARGIN = " "
_DIGITS = re.compile(r"(\d+)")


@dataclass(frozen=True)
class GridColumn:
    """A heading; `right` aligns numbers. If not all columns fit, the one with the highest `rank` is left out first, and
    a column of rank 0 never. The last column may break its cells between words."""

    title: str
    right: bool = False
    rank: int = 0


@dataclass(frozen=True)
class GridRow:
    """Cells, and texts that are printed `below` them, each on its own lines."""

    cells: Sequence[str]
    below: Sequence[str] = field(default=())


def natural_order(parts: Sequence[Any]) -> tuple[Any, ...]:
    """A value to sort a key by: 2 comes before 10, a2 before a10, numbers before texts."""
    return tuple(_order_of(part) for part in parts)


def _order_of(part: Any) -> tuple[Any, ...]:
    if isinstance(part, int | float) and not isinstance(part, bool):
        return (0, part, ())
    pieces = _DIGITS.split(str(part))
    return (1, 0, tuple((0, int(piece), "") if n % 2 else (1, 0, piece) for n, piece in enumerate(pieces) if piece))


def lines_of(text: str, width: int | None, indent: str = "") -> Iterator[str]:
    """The text in lines that break between words; lines after the first begin with `indent`. `width` None: one line."""
    if width is None:
        yield text
        return
    line, words = "", text.split(" ")
    for number, word in enumerate(words):
        longer = f"{line} {word}" if number else word
        if number and line.strip() and cell_len(longer) > width:
            yield line.rstrip()
            line = indent + word
        else:
            line = longer
    yield line.rstrip()


def laid_out(columns: Sequence[GridColumn], rows: Sequence[GridRow], width: int | None) -> Iterator[tuple[str, str]]:
    """The lines, each with its style: the headings, a rule, and the rows with the texts below them."""
    widths = [
        max(cell_len(text) for text in (column.title, *(row.cells[n] for row in rows)))
        for n, column in enumerate(columns)
    ]
    shown, gap = list(range(len(columns))), "  "
    if width is not None and _total_width(widths, shown, gap) > width:
        gap = " "
    while width is not None and _total_width(widths, shown, gap) > width:
        dropped = max(shown, key=lambda n: (columns[n].rank, n))
        if columns[dropped].rank == 0:
            break
        shown.remove(dropped)
    if width is not None and (excess := _total_width(widths, shown, gap) - width) > 0 and not columns[shown[-1]].right:
        widths[shown[-1]] = max(_NARROWEST, cell_len(columns[shown[-1]].title), widths[shown[-1]] - excess)

    def line(cells: Sequence[str]) -> str:
        padded = (_padded(cells[n], widths[n], right=columns[n].right) for n in shown)
        return (_MARGIN + gap.join(padded)).rstrip()

    yield line([column.title for column in columns]), "bold"
    yield _MARGIN + "─" * (_total_width(widths, shown, gap) - len(_MARGIN)), "dim"
    for row in rows:
        last = shown[-1]
        texts = list(lines_of(row.cells[last], widths[last])) or [""]
        for number, text in enumerate(texts):
            yield line([text if n == last else "" if number else cell for n, cell in enumerate(row.cells)]), ""
        for text in row.below:
            for part in lines_of(text, None if width is None else width - 5):
                yield f"{_MARGIN}    {part}", ""


def _total_width(widths: Sequence[int], shown: Sequence[int], gap: str) -> int:
    return len(_MARGIN) + sum(widths[n] for n in shown) + len(gap) * (len(shown) - 1)


def _padded(text: str, width: int, *, right: bool) -> str:
    room = " " * (width - cell_len(text))
    return room + text if right else text + room
