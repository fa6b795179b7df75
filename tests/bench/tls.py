"""The grade that testssl.sh gives our TLS, by the rules of SSL Labs: both proxies, both policies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tests.bench import kinds
from tests.bench.commands import BenchError, say
from tests.bench.ground import ADDRESS, POLICIES, Ground, client
from tests.bench.report import Row
from tests.lab.engine import stage

WANTED = "A+"
KIND = "python"
AUTHORITY = "/usr/local/share/ca-certificates/lab.crt"
FINDINGS = "/var/tmp/testssl.json"
#: All that the grade is made of; simulated browsers and the order of ciphers take half of the time and do not count.
CHECKS = "--protocols --std --fs --server-defaults --headers --vulnerable"


def measure(ground: Ground, proxy: str) -> Iterator[Row]:
    for policy in POLICIES:
        ground.stand_behind(proxy, policy)
        with stage(f"testssl.sh: {proxy}, {policy}"):
            target = f"--add-ca {AUTHORITY} --ip {ADDRESS} {kinds.domain_of(KIND)}"
            # It ends with the number of its findings, of whatever weight.
            client(
                f"rm -f {FINDINGS}; testssl --quiet --color 0 --warnings off {CHECKS} --jsonfile {FINDINGS} {target} "
                ">/var/tmp/testssl.log 2>&1 || true"
            )
            findings = json.loads(client(f"cat {FINDINGS}"))
        yield verdict(proxy, policy, findings)


def verdict(proxy: str, policy: str, findings: list[dict[str, Any]]) -> Row:
    grade, reasons = rating(findings)
    for reason in reasons:
        say(f"testssl.sh, {proxy}, {policy}: {reason}")
    return Row(f"TLS: {proxy}, {policy}", "testssl.sh", "", grade, f"at least {WANTED}", grade == WANTED)


def rating(findings: list[dict[str, Any]]) -> tuple[str, list[str]]:
    """(the grade, what keeps it from being better)"""
    grades = [str(row["finding"]) for row in findings if row["id"] == "overall_grade"]
    if len(grades) != 1:
        raise BenchError(f"testssl.sh gave {len(grades)} grades: {findings[-3:]}")
    return grades[0], [str(row["finding"]) for row in findings if str(row["id"]).startswith("grade_cap_reason")]
