"""How long Shipshape's core takes, as ratios to what the same machine needs for the bare work.

Cold: site.yml without apps and backups (hardening, Docker, PostgreSQL, nginx, certificate) on a bare droplet, against
one `apt-get update` and `apt-get install` of the very packages that run installed, on another bare droplet.
Second run: the same command again, changing nothing, against `ansible -m ping`.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.bench.commands import BenchError, run, say, timed
from tests.bench.report import Row, slower
from tests.lab import droplet, inventory, settings

DROPLET = "shipshape-bench"
ADDRESS = "10.77.0.31"
DOMAIN = "bench.test"
COLD_LIMIT, SECOND_LIMIT = 1.6, 10.0


def measure(repeats: int) -> Iterator[Row]:
    try:
        with tempfile.TemporaryDirectory() as folder:
            hosts = str(inventory.write(Path(folder), inventory.one_droplet("bench", ADDRESS, DOMAIN)))
            yield from _measure(hosts, repeats)
    finally:
        droplet.remove(DROPLET)


def _measure(hosts: str, repeats: int) -> Iterator[Row]:
    site = ("ansible-playbook", "site.yml", "-i", hosts, "--skip-tags", "app,backup")
    ping = ("ansible", "bench", "-i", hosts, "-m", "ansible.builtin.ping", "-u", inventory.ADMIN)
    cold: list[float] = []
    bare: list[float] = []
    second: list[float] = []
    pings: list[float] = []
    packages: list[str] = []
    counts: dict[str, int] = {}
    for turn in range(1, repeats + 1):
        say(f"repeat {turn} of {repeats}: bare apt, cold run, second runs")
        bare_droplet()
        packages = installed_packages(run(*site[:4], "--check", "--diff", "--tags", "packages"))
        bare.append(apt(packages))
        bare_droplet()
        cold.append(timed(*site)[0])
        for _ in range(3):
            seconds, output = timed(*site)
            second.append(seconds)
            counts = recap(output)
            pings.append(timed(*ping)[0])
        if counts["changed"]:
            raise BenchError(f"the second run changed something: {counts}")
    say(f"{len(packages)} packages named; second run: {counts['ok']} tasks ok, {counts['skipped']} skipped, 0 changed")
    yield slower("cold run", cold, "apt-get", bare, COLD_LIMIT)
    yield slower("second run", second, "ansible -m ping", pings, SECOND_LIMIT)


def bare_droplet() -> None:
    droplet.remove(DROPLET)
    # Without the lab's cache of downloaded packages: a real droplet has none.
    droplet.start(DROPLET, settings.DEFAULT_RELEASE, ADDRESS, [DOMAIN], package_cache=False)


def recap(output: str) -> dict[str, int]:
    line = re.search(r"^bench +: +(.*)$", output, re.MULTILINE)
    if not line:
        raise BenchError(f"no recap in:\n{output[-2000:]}")
    return {name: int(count) for name, count in re.findall(r"(\w+)=(\d+)", line.group(1))}


def installed_packages(output: str) -> list[str]:
    """The packages a cold run asks for, as its check on the bare droplet names them."""
    # Not those of the holds, which stand behind them and name what another release's package would be called, too.
    _before, _header, rest = output.partition("+++ after: packages\n")
    names = re.findall(r"^\+([a-z0-9][a-z0-9.+-]*)$", rest.partition("\n--- ")[0], re.MULTILINE)
    if not names:
        raise BenchError(f"no packages in:\n{output[-2000:]}")
    return sorted(set(names))


def apt(packages: list[str]) -> float:
    options = ("-i", str(settings.SSH_KEY), "-o", f"UserKnownHostsFile={settings.KNOWN_HOSTS}")
    script = (
        "apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "
        + " ".join(packages)
    )
    return timed("ssh", *options, "-o", "StrictHostKeyChecking=accept-new", f"root@{ADDRESS}", script)[0]
