"""`make test`: run the Makefile's test targets one after another, failures or not, and end with a line of counts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Outcome:
    stage: str
    code: int
    passed: int
    failed: int
    seconds: float

    def __str__(self) -> str:
        """A stage that fails without counting anything, a type error for example, is still one failure."""
        if self.code == 0:
            return f"{self.stage} {self.passed or 'ok'}"
        return f"{self.stage} {self.failed or 1} FAILED"


def count(line: str, word: str) -> int:
    """The number in `12 passed`, which pytest, the scenarios and the site test all print."""
    found = re.search(rf"(\d+) {word}\b", line)
    return int(found.group(1)) if found else 0


def run(stage: str) -> Outcome:
    """`lint` runs `make lint`; `test-roles:debian-11` runs `make test-roles IMAGE=debian-11`."""
    target, _, image = stage.partition(":")
    command = ["make", "--no-print-directory", target, *([f"IMAGE={image}"] if image else [])]
    started = time.monotonic()
    print(f"\ntest | {stage} …", flush=True)
    counts = ""
    with subprocess.Popen(
        command,
        cwd=PROJECT,
        # Each line when it is there, and not when a buffer is full.
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            if re.search(r"\d+ (passed|failed)\b", line):
                counts = line
    seconds = time.monotonic() - started
    print(f"test | {stage}: {'passed' if process.returncode == 0 else 'FAILED'} in {seconds:.0f} s", flush=True)
    return Outcome(stage, process.returncode, count(counts, "passed"), count(counts, "failed"), seconds)


def totals(outcomes: list[Outcome]) -> tuple[int, int]:
    """(passed, failed); a stage that counts nothing is one check."""
    passed = sum(outcome.passed or 1 for outcome in outcomes if outcome.code == 0)
    passed += sum(outcome.passed for outcome in outcomes if outcome.code != 0)
    return passed, sum(outcome.failed or 1 for outcome in outcomes if outcome.code != 0)


def summary(outcomes: list[Outcome]) -> str:
    minutes, seconds = divmod(round(sum(outcome.seconds for outcome in outcomes)), 60)
    parts = ", ".join(str(outcome) for outcome in outcomes)
    passed, failed = totals(outcomes)
    # The counts stand alone on the last line, where a reader and a machine look for them.
    return f"test | {minutes} min {seconds} s: {parts}\n{passed} passed, {failed} failed"


def main(stages: list[str]) -> int:
    outcomes = [run(stage) for stage in stages]
    print(f"\n{summary(outcomes)}", flush=True)
    return 0 if all(outcome.code == 0 for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
