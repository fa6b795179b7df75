"""ssh-audit: every algorithm the server offers that somebody advises against."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.audit.model import AuditError, Finding, Result
from tests.audit.target import Target

NAME = "ssh-audit"
KINDS = {"kex": "key exchange", "key": "host key", "enc": "cipher", "mac": "message authentication"}


def program() -> str:
    found = shutil.which("ssh-audit", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if not found:
        raise AuditError("ssh-audit is missing: run `make setup`")
    return found


def run(target: Target, raw: Path) -> Result:
    # Dozens of connections at once say nothing about algorithms, and newer servers shut the door on who makes them.
    command = [program(), "--json", "--skip-rate-test", "--port", str(target.port), target.address]
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=120)
    # It ends with 2 for warnings and 3 for failures; 1 is a failed connection.
    if result.returncode not in (0, 2, 3):
        raise AuditError(f"`{' '.join(command)}` failed:\n{result.stdout}{result.stderr}")
    (raw / "ssh-audit.json").write_text(result.stdout, encoding="utf-8")
    return parse(json.loads(result.stdout))


def parse(report: dict[str, Any]) -> Result:
    failing, warning = (findings(report, level) for level in ("fail", "warn"))
    return Result(
        NAME,
        f"ssh-audit of {report['banner']['software']}",
        f"{len(failing)} failures, {len(warning)} warnings",
        "0 failures, 0 warnings",
        not failing and not warning,
        failing + warning,
        tuple(Finding("note", note) for note in report.get("additional_notes", ())),
    )


def findings(report: dict[str, Any], level: str) -> tuple[Finding, ...]:
    found = []
    for kind, name in KINDS.items():
        for row in report.get(kind, ()):
            if notes := row.get("notes", {}).get(level):
                found.append(Finding(f"{level}:{row['algorithm']}", "; ".join(notes), name))
    return tuple(found)
