"""`make audit`: bring a bare droplet to production, let strangers' audit tools loose on it, and judge what they say.

Ends with 0 only when every auditor is content, every failure is waived with its reason and no waiver is stale.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from plugins.plugin_utils.declared_ports import Port
from tests.audit import declared, docker_bench, lynis, openscap, probe, report, ssh_audit, waivers
from tests.audit.model import AuditError, Judgement, Result, judge
from tests.audit.target import Target
from tests.lab import droplet, inventory, services, settings
from tests.lab.engine import LabError, docker, exclusive, say, stage
from tests.lab.image import RELEASES, release_of

FOLDER = settings.STATE / "audit"
HOST, DOMAIN = "audit", "audit.test"
FILES = Path(__file__).with_name("droplet")
#: A unit and its script, by which the droplet has kernel settings that it can write and read back.
KERNEL_SETTINGS = ("etc/systemd/system/audit-kernel-settings.service", "usr/local/sbin/audit-kernel-settings")
#: What a waiver may be narrowed to: a droplet's image, or the virtual machine of `make test-vm`.
VM = "vm"
IMAGES = (*RELEASES, VM)
AUDITORS = (openscap.NAME, lynis.NAME, docker_bench.NAME, ssh_audit.NAME, probe.NAME)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.audit", description=__doc__)
    parser.add_argument("--image", default=settings.DEFAULT_RELEASE, help=", ".join(RELEASES))
    parser.add_argument("--name", default="shipshape-audit", help="of the droplet")
    parser.add_argument("--address", default="10.77.0.70", help="of the droplet")
    parser.add_argument("--keep", action="store_true", help="start from the droplet of the last audit, and leave it")
    given = parser.parse_args()
    try:
        # The outputs of two audits would mix.
        with exclusive("audit"):
            judgement = audit(release_of(given.image), given.name, given.address, keep=given.keep)
    except (AuditError, LabError) as error:
        print(f"audit | {error}", file=sys.stderr)
        return 1
    return 0 if judgement.ok else 1


def audit(image: str, name: str, address: str, *, keep: bool) -> Judgement:
    excused = waivers.read(waivers.FILE, AUDITORS, IMAGES)
    raw, guide = FOLDER / "raw", FOLDER / "guide"
    raw.mkdir(parents=True, exist_ok=True)
    told = facts(raw)
    # What is missing is said before a droplet is started for nothing.
    with stage("auditors"):
        ssh_audit.program()
        probe.install()
        openscap.guide(guide)
    for old in raw.iterdir():
        old.unlink()
    if not keep:
        droplet.remove(name)
    try:
        ports = to_production(image, name, address)
        results = ask_all(Target(address, inventory.ADMIN), raw, guide, ports)
    finally:
        if not keep:
            droplet.remove(name)
    judgement = judge(results, excused, image)
    subject = f"{image}, after site.yml and a reboot"
    page = FOLDER / "report.html"
    page.write_text(report.html(judgement, subject, told), encoding="utf-8")
    print(f"\n{report.terminal(judgement, subject)}\nreport: {os.path.relpath(page)}", flush=True)
    return judgement


def to_production(image: str, name: str, address: str) -> set[Port]:
    """Start the droplet, run site.yml and reboot, as what counts is what comes back; return the declared ports."""
    services.ensure_services()
    droplet.start(name, image, address, [DOMAIN])
    # Docker lets nobody write kernel settings but the network's; a machine has a kernel of its own.
    droplet.put(name, {path: ((FILES / Path(path).name).read_bytes(), 0o644) for path in KERNEL_SETTINGS})
    docker("exec", name, "systemctl", "enable", "--now", Path(KERNEL_SETTINGS[0]).name)
    planned = inventory.one_droplet(HOST, address, DOMAIN)
    if RELEASES[image].dressed_as:
        # Under the other release's name, its packages are still those of Debian 12.
        planned["all"]["vars"]["postgresql_version"] = "15"
    hosts = inventory.write(FOLDER, planned)
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    log = FOLDER / "site.log"
    with stage("ansible-playbook site.yml --skip-tags app,backup"), log.open("wb") as output:
        result = subprocess.run(
            [program, "site.yml", "--inventory", str(hosts), "--skip-tags", "app,backup"],
            cwd=settings.PROJECT,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if result.returncode != 0:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        raise AuditError("\n".join(["site.yml failed:", *lines[-40:]]))
    droplet.reboot(name)
    # As its timer does a few minutes later.
    Target(address, inventory.ADMIN).root("systemctl start shipshape-aide.service")
    return declared.ports(planned, HOST, ssh_port=Target.port)


def ask_all(target: Target, raw: Path, guide: Path, ports: set[Port]) -> list[Result]:
    """The scans from outside come last: what they provoke, a ban for example, must not hinder the others."""
    auditors: dict[str, Callable[[], Result]] = {
        openscap.NAME: lambda: openscap.run(target, raw, guide),
        lynis.NAME: lambda: lynis.run(target, raw),
        docker_bench.NAME: lambda: docker_bench.run(target, raw),
        ssh_audit.NAME: lambda: ssh_audit.run(target, raw),
        probe.NAME: lambda: probe.run(target, raw, ports),
    }
    results = []
    for name, run in auditors.items():
        with stage(name):
            try:
                results.append(run())
            except AuditError as error:
                say(f"{name}: {error}")
                why = str(error).splitlines()[0]
                results.append(Result(name, name, f"gave no opinion: {why}", "an opinion", within=False, spoke=False))
    return results


def facts(raw: Path) -> list[tuple[str, str]]:
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=settings.PROJECT, capture_output=True, text=True, check=False
    )
    return [
        ("commit", commit.stdout.strip() or "unknown"),
        ("time", datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")),
        ("raw outputs", f"{raw.name}/, beside this file"),
    ]


if __name__ == "__main__":
    sys.exit(main())
