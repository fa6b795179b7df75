"""Numbers and tables as people read them. Pure."""

from __future__ import annotations

from typing import List, Sequence


def size(number: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if abs(number) < 1024:
            return f"{number:.0f} {unit}" if unit in ("B", "kB") or number >= 100 else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TB"


def count(number: float) -> str:
    return f"{number:,.0f}"


def day(time: object) -> str:
    """The day and minute of a time, or never."""
    return str(time)[:16].replace("T", " ") if time else "never"


def table(heads: Sequence[str], lines: Sequence[Sequence[str]], last_is_text: bool = False) -> List[str]:
    """Columns: the first, and with `last_is_text` the last, begin at their left; numbers end at their right."""
    widths = [max(len(row[column]) for row in [heads, *lines]) for column in range(len(heads))]
    out = []
    for row in [heads, *lines]:
        cells = [
            cell
            if last_is_text and column == len(heads) - 1
            else cell.ljust(width)
            if column == 0
            else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths))
        ]
        out.append("  ".join(cells).rstrip())
    return out
