"""`make bench`: how long Shipshape's core takes, as ratios to what the same machine needs for the bare work.

Cold: site.yml without apps and backups (hardening, Docker, PostgreSQL, nginx, certificate) on a bare droplet, against
one `apt-get update` and `apt-get install` of the very packages that run installed, on another bare droplet.
Second run: the same command again, changing nothing, against `ansible -m ping`.
Machines are noisy, so each pair is measured in turns and the medians are compared.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.lab import inventory

PROJECT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
DROPLET = "shipshape-bench"
ADDRESS = "10.77.0.31"
DOMAIN = "bench.test"
SSH_OPTIONS = f"-o UserKnownHostsFile={PROJECT}/.lab/known_hosts"
#: What the project promises.
COLD_LIMIT, SECOND_LIMIT = 1.6, 10.0


def run(*command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    environment = dict(os.environ, PATH=f"{BIN}:{os.environ['PATH']}", ANSIBLE_NOCOLOR="1")
    result = subprocess.run(
        command, cwd=PROJECT, env=environment, text=True, capture_output=True, stdin=subprocess.DEVNULL
    )
    if check and result.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{result.stdout[-4000:]}\n{result.stderr[-2000:]}")
    return result


def lab(*words: str) -> str:
    return run(sys.executable, "-m", "tests.lab", *words).stdout.strip()


def timed(*command: str) -> tuple[float, str]:
    begin = time.monotonic()
    output = run(*command).stdout
    return time.monotonic() - begin, output


def bare_droplet() -> None:
    lab("remove", DROPLET)
    # Without the lab's cache of downloaded packages: a real droplet has none.
    lab("droplet", DROPLET, "--address", ADDRESS, "--alias", DOMAIN, "--no-package-cache")


def recap(output: str) -> dict[str, int]:
    line = re.search(r"^bench +: +(.*)$", output, re.MULTILINE)
    if not line:
        sys.exit(f"no recap in:\n{output[-2000:]}")
    return {name: int(count) for name, count in re.findall(r"(\w+)=(\d+)", line.group(1))}


def installed_packages(site: tuple[str, ...]) -> list[str]:
    """The packages a cold run asks for, as its check on the bare droplet names them."""
    output = run(*site, "--check", "--diff", "--tags", "packages").stdout
    # Not those of the holds, which stand behind them and name what another release's package would be called, too.
    _before, _header, rest = output.partition("+++ after: packages\n")
    names = re.findall(r"^\+([a-z0-9][a-z0-9.+-]*)$", rest.partition("\n--- ")[0], re.MULTILINE)
    if not names:
        sys.exit(f"no packages in:\n{output[-2000:]}")
    return sorted(set(names))


def apt(packages: list[str]) -> float:
    options = [
        "-i",
        str(PROJECT / ".lab/ssh/id_ed25519"),
        *SSH_OPTIONS.split(),
        "-o",
        "StrictHostKeyChecking=accept-new",
    ]
    script = (
        "apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "
        + " ".join(packages)
    )
    return timed("ssh", *options, f"root@{ADDRESS}", script)[0]


def row(label: str, ours: list[float], reference: list[float], reference_name: str, limit: float) -> bool:
    ratio = statistics.median(ours) / statistics.median(reference)
    verdict = "ok" if ratio <= limit else "TOO SLOW"
    print(
        f"{label:<12} {statistics.median(ours):7.2f} s   {reference_name:<16} {statistics.median(reference):7.2f} s   "
        f"ratio {ratio:5.2f}   (at most {limit:g})   {verdict}"
    )
    return ratio <= limit


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    repeats: int = parser.parse_args().repeats
    lab("services")
    with tempfile.TemporaryDirectory() as folder:
        hosts = str(inventory.write(Path(folder), inventory.one_droplet("bench", ADDRESS, DOMAIN)))
        site = ("ansible-playbook", "site.yml", "-i", hosts, "--skip-tags", "app,backup")
        ping = ("ansible", "bench", "-i", hosts, "-m", "ansible.builtin.ping", "-u", inventory.ADMIN)
        cold, bare, second, pings = [], [], [], []
        counts: dict[str, int] = {}
        for turn in range(1, repeats + 1):
            print(f"repeat {turn} of {repeats}: bare apt, cold run, second runs", flush=True)
            bare_droplet()
            packages = installed_packages(site[:4])
            bare.append(apt(packages))
            bare_droplet()
            cold.append(timed(*site)[0])
            for _ in range(3):
                seconds, output = timed(*site)
                second.append(seconds)
                counts = recap(output)
                pings.append(timed(*ping)[0])
            if counts["changed"]:
                sys.exit(f"the second run changed something: {counts}")
        lab("remove", DROPLET)
    print(
        f"\n{len(packages)} packages named; second run: {counts['ok']} tasks ok, {counts['skipped']} skipped, 0 changed"
    )
    good = row("cold", cold, bare, "apt-get", COLD_LIMIT)
    good = row("second run", second, pings, "ansible -m ping", SECOND_LIMIT) and good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
