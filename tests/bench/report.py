"""One row a figure: what was measured, against what, where the limit is, and whether it is kept."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

HEADINGS = ("figure", "measured", "against", "result", "limit", "")


@dataclass(frozen=True)
class Row:
    figure: str
    measured: str
    against: str
    result: str
    limit: str
    good: bool

    @property
    def cells(self) -> tuple[str, ...]:
        return (self.figure, self.measured, self.against, self.result, self.limit, "ok" if self.good else "MISSED")


def slower(figure: str, ours: Sequence[float], other: str, reference: Sequence[float], limit: float) -> Row:
    """How many times the reference something takes, by the medians."""
    mine, its = statistics.median(ours), statistics.median(reference)
    return Row(
        figure, f"{mine:.2f} s", f"{other} {its:.2f} s", f"{mine / its:.2f} x", f"at most {limit:g} x",
        mine / its <= limit,
    )  # fmt: skip


def faster(figure: str, ours: Sequence[float], other: str, reference: Sequence[float], limit: float) -> Row:
    """Which share of the reference something reaches: the median of what each pair of neighbours in time says.

    A machine that has something else to do for a while slows both of a pair, and the ratio stays what it is.
    """
    share = statistics.median(mine / its for mine, its in zip(ours, reference))
    return Row(
        figure, f"{statistics.median(ours):.0f}/s", f"{other} {statistics.median(reference):.0f}/s", f"{share:.3f} x",
        f"at least {limit:g} x", share >= limit,
    )  # fmt: skip


def table(rows: Iterable[Row]) -> str:
    lines = [HEADINGS, *(row.cells for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)
