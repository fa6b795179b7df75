"""OpenSCAP with the SCAP Security Guide: the CIS benchmark for Ubuntu 22.04, level 1, server."""

from __future__ import annotations

import gzip
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from tests.audit.model import AuditError, Finding, Result
from tests.audit.target import Target
from tests.lab.engine import exclusive
from tests.lab.host import ensure_program

NAME = "openscap"
WANTED_SHARE = 95.0
# Debian 12 and Ubuntu 22.04 have older guides: with one and the same for all releases, figures can be compared.
GUIDE_PACKAGE, GUIDE_VERSION, GUIDE_SUITE = "ssg-debderived", "0.1.76-1", "trixie"
STREAM = "usr/share/xml/scap/ssg/content/ssg-ubuntu2204-ds.xml"
PROFILE = "xccdf_org.ssgproject.content_profile_cis_level1_server"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
# Ubuntu 22.04 has the program in the library's package; Debian 11 has it nowhere, and is then not audited by it.
SCANNERS = ("openscap-scanner", "libopenscap8")
# The guide takes a system without it for a container, and skips every second rule. All that boot a kernel have it.
MARK_OF_A_MACHINE = "linux-base"

XCCDF = "{http://checklists.nist.gov/xccdf/1.2}"
BENCHMARK = "https://www.cisecurity.org/benchmark/"
RULE = "xccdf_org.ssgproject.content_rule_"
# What the scanner could not evaluate is not known to be good.
FAILED = ("fail", "error", "unknown")


def run(target: Target, raw: Path, cache: Path) -> Result:
    stream = without_platform(guide(cache).read_text(encoding="utf-8"))
    target.install(target.first_available(*SCANNERS), MARK_OF_A_MACHINE)
    # It ends with 2 when a rule fails, which is what we are here for.
    script = (
        'directory=$(mktemp -d); trap \'rm -rf "$directory"\' EXIT; cd "$directory"; gzip -dc >stream.xml; '
        f"oscap xccdf eval --profile {PROFILE} --results results.xml stream.xml >log 2>&1 || "
        "{ code=$?; [ $code -eq 2 ] || { cat log >&2; exit $code; }; }; gzip -c results.xml"
    )
    results = gzip.decompress(target.root(script, gzip.compress(stream.encode(), 1)))
    (raw / "openscap.xml").write_bytes(results)
    return parse(results)


def guide(cache: Path) -> Path:
    """The data stream, downloaded once by apt from Debian's archive, whatever this machine's own sources are."""
    found = cache / GUIDE_VERSION / STREAM
    with exclusive("guide"):
        if not found.exists():
            ensure_program("dpkg-deb", packages=("dpkg",))
            _download(cache)
    return found


def _download(cache: Path) -> None:
    if not Path(KEYRING).exists():
        raise AuditError("Debian's archive key is missing. Type:\n    sudo apt-get install debian-archive-keyring")
    apt = cache / "apt"
    for directory in ("etc/preferences.d", "etc/sources.list.d", "state/lists/partial", "archives/partial"):
        (apt / directory).mkdir(parents=True, exist_ok=True)
    source = f"deb [signed-by={KEYRING}] http://deb.debian.org/debian {GUIDE_SUITE} main\n"
    (apt / "etc/sources.list").write_text(source, encoding="utf-8")
    places = {"Dir::Etc": "etc", "Dir::State": "state", "Dir::Cache": ".", "Dir::Cache::Archives": "archives"}
    options = [f"-o{key}={apt / place}" for key, place in places.items()]
    options += ["-oDir::State::status=/dev/null", "-oAPT::Sandbox::User="]
    archive = apt / f"{GUIDE_PACKAGE}_{GUIDE_VERSION}_all.deb"
    for command in (
        ["apt-get", *options, "-qq", "update"],
        ["apt-get", *options, "-qq", "download", f"{GUIDE_PACKAGE}={GUIDE_VERSION}"],
        ["dpkg-deb", "--extract", str(archive), str(cache / GUIDE_VERSION)],
    ):
        result = subprocess.run(command, cwd=apt, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise AuditError(f"`{' '.join(command[:1] + command[-2:])}` failed:\n{result.stderr.strip()}")


def without_platform(stream: str) -> str:
    """The stream without the line by which it declines to look at anything but Ubuntu 22.04."""
    changed, count = re.subn(r'<[\w.-]+:platform idref="cpe:/o:canonical:ubuntu_linux:22\.04[^"]*"/>\n?', "", stream)
    if count != 1:
        raise AuditError(f"the guide has {count} platform lines instead of one: is {GUIDE_VERSION} another edition?")
    return changed


def parse(results: bytes) -> Result:
    root = ElementTree.fromstring(results)
    outcomes = [(str(row.get("idref")), row.findtext(f"{XCCDF}result", "")) for row in root.iter(f"{XCCDF}rule-result")]
    if not outcomes:
        raise AuditError("OpenSCAP evaluated no rule")
    counts = Counter(outcome for _, outcome in outcomes)
    passed = counts["pass"] + counts["fixed"]
    failed = sum(counts[outcome] for outcome in FAILED)
    if not passed + failed:
        raise AuditError("OpenSCAP found no rule that applies: does the platform line still stand?")
    share = 100 * passed / (passed + failed)
    rules = {finding.id: finding for finding in _rules(root)}
    failures = [
        Finding(rule.id, rule.title, rule.group, "" if outcome == "fail" else f"the scanner says: {outcome}")
        for rule, outcome in ((rules[short_id(idref)], outcome) for idref, outcome in outcomes if outcome in FAILED)
    ]
    return Result(
        NAME,
        f"OpenSCAP, CIS Ubuntu 22.04 level 1 server (guide {GUIDE_VERSION.partition('-')[0]})",
        f"{passed} pass, {failed} fail: {share:.1f} %",
        f"≥ {WANTED_SHARE:g} %, each failure waived",
        share >= WANTED_SHARE,
        tuple(sorted(failures, key=lambda one: (_numbers(one.group), one.id))),
    )


def short_id(idref: str) -> str:
    return idref.removeprefix(RULE)


def _rules(root: ElementTree.Element) -> Iterator[Finding]:
    for rule in root.iter(f"{XCCDF}Rule"):
        numbers = [
            row.text or "" for row in rule.findall(f"{XCCDF}reference") if row.get("href", "").startswith(BENCHMARK)
        ]
        title = " ".join((rule.findtext(f"{XCCDF}title") or "").split())
        yield Finding(short_id(str(rule.get("id"))), title, f"CIS {', '.join(numbers)}" if numbers else "")


def _numbers(group: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", group)]
