"""`make bench`: all figures that the project promises, in one table; ends with 1 when one of them is missed.

Machines are noisy, so what is compared is measured in turns, and medians are compared.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.bench import core, database, deploys, ground, recovery, throughput, tls
from tests.bench.report import Row, table
from tests.lab import services
from tests.lab.engine import LabError, say

#: What runs on a droplet with apps, one proxy after the other.
WITH_APPS = {"deploys": deploys.measure, "throughput": throughput.measure, "tls": tls.measure}
PARTS = ("core", "database", "recovery", *WITH_APPS)


def parts(text: str) -> list[str]:
    chosen = text.split(",")
    if unknown := [part for part in chosen if part not in PARTS]:
        raise argparse.ArgumentTypeError(f"there is no part {', '.join(unknown)}; there are: {', '.join(PARTS)}")
    return chosen


def measured(chosen: list[str], repeats: int, drills: int) -> Iterator[Row]:
    if "core" in chosen:
        yield from core.measure(repeats)
    if "database" in chosen:
        yield from database.measure()
    if "recovery" in chosen:
        yield from recovery.measure(drills)
    if not set(chosen) & set(WITH_APPS):
        return
    with tempfile.TemporaryDirectory() as folder, ground.made(Path(folder)) as here:
        for proxy in ground.PROXIES:
            for part, measure in WITH_APPS.items():
                if part in chosen:
                    yield from measure(here, proxy)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="of the cold run; 3")
    parser.add_argument("--drills", type=int, default=recovery.DRILLS, help=f"of restores; {recovery.DRILLS}")
    parser.add_argument("--only", type=parts, default=list(PARTS), help=f"some of {','.join(PARTS)}")
    given = parser.parse_args()
    rows: list[Row] = []
    failure = ""
    try:
        services.ensure_services()
        for row in measured(given.only, given.repeats, given.drills):
            rows.append(row)
            say("  ".join(filter(None, row.cells)))
    except LabError as error:
        # What was measured before is of use all the same.
        failure = str(error)
    print(f"\n{table(rows)}" if rows else "", flush=True)
    if failure:
        print(f"bench | {failure}", file=sys.stderr)
    return 0 if not failure and all(row.good for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
