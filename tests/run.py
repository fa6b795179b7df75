"""Run groups of checks one after the other, say how each went, and end with a line of counts.

`python -m tests.run lint unit roles site` is `make test`; `python -m tests.run role:nginx` is one scenario. The output of each
check goes to .cache/test/NAME.log and is shown when it fails.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
LOGS = PROJECT / ".cache" / "test"
BIN = Path(sys.executable).parent
#: Lines of a failed check's log that are shown; the rest is in the file.
SHOWN = 120
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Check:
    name: str
    command: tuple[str, ...]


def scenarios() -> list[str]:
    return sorted(path.parent.name for path in (PROJECT / "molecule").glob("*/molecule.yml"))


def scenario(name: str) -> Check:
    return Check(f"role:{name}", (str(BIN / "molecule"), "test", "--scenario-name", name))


def group(name: str) -> list[Check]:
    """The checks behind a word of the command line."""
    program = {word: str(BIN / word) for word in ("ruff", "mypy", "ansible-lint", "pytest", "python")}
    if name == "lint":
        return [
            Check("lint:ruff", (program["ruff"], "check", ".")),
            Check("lint:format", (program["ruff"], "format", "--check", ".")),
            Check("lint:types", (program["mypy"],)),
            Check("lint:ansible", (program["ansible-lint"], "--offline")),
            Check("lint:docs", (program["python"], "scripts/docs.py", "--check")),
        ]
    if name == "unit":
        return [Check("unit", (program["pytest"], "tests/unit"))]
    if name == "site":
        return [Check("site", (program["pytest"], "tests/site", "--verbose", "--durations=10"))]
    if name == "roles":
        return [scenario(found) for found in scenarios()]
    if name.startswith("role:") and name.removeprefix("role:") in scenarios():
        return [scenario(name.removeprefix("role:"))]
    sys.exit(f"unknown check '{name}': lint, unit, roles, site, or one of role:{' role:'.join(scenarios())}")


def counts(output: str, code: int) -> tuple[int, int]:
    """(passed, failed): the tests of a pytest run, else the one check."""
    summary = re.findall(r"^=*.*\b\d+ (?:passed|failed|error).* in [\d.]+s", COLOUR.sub("", output), re.MULTILINE)
    if not summary:
        return (1, 0) if code == 0 else (0, 1)
    numbers = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|error)", summary[-1])}
    failed = numbers.get("failed", 0) + numbers.get("error", 0)
    return numbers.get("passed", 0), failed or int(code != 0)


def run(check: Check) -> tuple[int, int]:
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"{check.name.replace(':', '-')}.log"
    print(f"test | {check.name} …", flush=True)
    begin = time.monotonic()
    with log.open("w", encoding="utf-8") as handle:
        environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
        result = subprocess.run(
            check.command, cwd=PROJECT, env=environment, stdin=subprocess.DEVNULL, stdout=handle, stderr=subprocess.STDOUT, check=False
        )
    output = log.read_text(encoding="utf-8", errors="replace")
    passed, failed = counts(output, result.returncode)
    seconds = time.monotonic() - begin
    if failed:
        print(COLOUR.sub("", "\n".join(output.splitlines()[-SHOWN:])), flush=True)
    print(f"test | {check.name}: {'FAILED' if failed else 'ok'}, {passed} passed, {failed} failed, {seconds:.0f} s", flush=True)
    return passed, failed


def main() -> int:
    checks = [check for word in sys.argv[1:] for check in group(word)]
    begin = time.monotonic()
    results = {check.name: run(check) for check in checks}
    failures = [name for name, (_passed, failed) in results.items() if failed]
    print(f"\ntest | {len(checks)} checks in {(time.monotonic() - begin) / 60:.1f} minutes")
    for name in failures:
        print(f"test | FAILED {name}: see .cache/test/{name.replace(':', '-')}.log")
    passed, failed = (sum(column) for column in zip(*results.values(), strict=True)) if results else (0, 0)
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
