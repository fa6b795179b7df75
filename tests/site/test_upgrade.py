"""Held packages stay when all others are upgraded; the playbook takes them along, and stops where something breaks.

One hardened droplet with all services and a bare one, and on both a repository with newer versions of a few packages.
"""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import droplet, inventory, settings
from tests.site.system import BIN, PROJECT, Run, environment

NAME, ADDRESS = "shipshape-upgrade", "10.77.0.50"
SECOND, SECOND_ADDRESS = "shipshape-upgrade-second", "10.77.0.51"
DOMAIN = "upgrade.test"
PLAYBOOK = "playbooks/maintenance/upgrade.yml"
HELD = ("containerd", "docker.io", "postgresql-15", "runc")

#: offer VERSION [SCRIPT] PACKAGE...: newer builds of the distribution's packages, as if they were security updates.
OFFER = r"""#!/bin/bash
set -euo pipefail
version=$1 script=$2; shift 2
export DEBIAN_FRONTEND=noninteractive
mkdir -p /srv/newer /tmp/newer && cd /tmp/newer && chmod 0777 .
# There is nothing newer in the world than what this offers.
rm -f /etc/apt/sources.list.d/newer.list
apt-get -qq update
for package in "$@"; do
  # What is installed may be a build of an earlier offer, which no source has.
  original=$(apt-cache madison "$package" | awk '{print $3; exit}')
  rm -rf "$package"; apt-get -qq download "$package=$original"
  dpkg-deb -R "$package"_*.deb "$package" && rm "$package"_*.deb
  sed -i "s/^Version: .*/Version: $version/" "$package/DEBIAN/control"
  if [ -n "$script" ]; then
    printf '#!/bin/sh\n%s\n' "$script" > "$package/DEBIAN/postinst"
    chmod 0755 "$package/DEBIAN/postinst"
  fi
  dpkg-deb --root-owner-group -Zgzip -z1 -b "$package" /srv/newer > /dev/null
done
cd /srv/newer
apt-ftparchive packages . > Packages
apt-ftparchive -o APT::FTPArchive::Release::Origin=Debian -o APT::FTPArchive::Release::Label=Debian-Security \
  -o APT::FTPArchive::Release::Codename=bookworm-security release . > /tmp/Release && mv /tmp/Release Release
echo 'deb [trusted=yes] file:/srv/newer ./' > /etc/apt/sources.list.d/newer.list
apt-get -qq update
"""


#: Says again what each of those who are connected says.
ECHO = """
import socketserver
class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line)
socketserver.ThreadingTCPServer.allow_reuse_address = True
server = socketserver.ThreadingTCPServer(("0.0.0.0", 20999), Echo)
server.daemon_threads = True
import threading
threading.Timer(90, server.shutdown).start()
server.serve_forever()
"""


def on(name: str, script: str) -> str:
    command = ["docker", "exec", name, "bash", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    return (done.stdout + done.stderr).strip()


def offer(name: str, version: str, script: str, *packages: str) -> None:
    command = ["docker", "exec", "-i", name, "bash", "-s", version, script, *packages]
    done = subprocess.run(command, input=OFFER, text=True, timeout=300, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def versions(name: str = NAME) -> str:
    return on(name, f"dpkg-query -W {' '.join(HELD)} tzdata 2>/dev/null")


def playbook(hosts: Path, *words: str) -> Run:
    done = subprocess.run(
        [str(BIN / "ansible-playbook"), *words, "--inventory", str(hosts)], cwd=PROJECT, env=environment(), text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=900, check=False,
    )  # fmt: skip
    return Run(done.returncode, done.stdout)


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    planned = inventory.one_droplet("first", ADDRESS, DOMAIN)
    everything = planned["all"]
    everything["hosts"]["second"] = {**everything["hosts"]["first"], "ansible_host": SECOND_ADDRESS}
    everything["children"]["proxy"]["hosts"]["second"] = {}
    for host in everything["hosts"].values():
        host["private_address"] = host["ansible_host"]
    return inventory.write(tmp_path_factory.mktemp("upgrade"), planned)


@pytest.fixture(scope="module", autouse=True)
def droplets(hosts: Path) -> Iterator[None]:
    for name, address in ((NAME, ADDRESS), (SECOND, SECOND_ADDRESS)):
        droplet.remove(name)
        droplet.start(name, settings.DEFAULT_RELEASE, address, [])
    run = playbook(hosts, "site.yml", "--limit", "first", "--tags", "packages,hardening,docker,postgresql,nginx")
    assert run.code == 0, run.tail
    for name in (NAME, SECOND):
        on(name, "apt-get -qq update; apt-get -qq install --no-install-recommends apt-utils tzdata")
    yield
    for name in (NAME, SECOND):
        droplet.remove(name)


def test_a_newer_engine_is_left_alone_by_apt_and_by_unattended_upgrades() -> None:
    assert on(NAME, "apt-mark showhold").split() == sorted(HELD)
    offer(NAME, "99:1", "", "docker.io", "postgresql-15", "tzdata")
    upgrade = on(NAME, "apt-get --simulate upgrade")
    assert "Inst tzdata" in upgrade and "Inst docker.io" not in upgrade and "Inst postgresql-15" not in upgrade
    unattended = on(NAME, "unattended-upgrade --dry-run --debug")
    chosen = next(line for line in unattended.splitlines() if "Packages that will be upgraded" in line)
    assert "tzdata" in chosen and "docker.io" not in chosen and "postgresql-15" not in chosen, unattended
    on(NAME, "apt-get --yes upgrade")
    assert "tzdata\t99:1" in versions() and "docker.io\t99:1" not in versions()


def test_a_hold_that_somebody_took_away_is_put_back(hosts: Path) -> None:
    on(NAME, "apt-mark unhold docker.io")
    assert "Inst docker.io" in on(NAME, "apt-get --simulate upgrade")
    check = playbook(hosts, "playbooks/docker.yml", "--check", "--diff")
    assert check.code == 0 and "+docker.io" in check.output, check.tail
    assert "docker.io" not in on(NAME, "apt-mark showhold")
    run = playbook(hosts, "playbooks/docker.yml")
    assert run.code == 0 and "docker.io" in on(NAME, "apt-mark showhold"), run.tail


def test_a_check_says_what_would_be_upgraded_and_changes_nothing(hosts: Path) -> None:
    state = "dpkg-query -W; apt-mark showhold; find /var/lib/apt /var/cache/apt /etc -type f -newer /srv/newer/Release"
    before = on(NAME, state)
    run = playbook(hosts, PLAYBOOK, "--limit", "first", "--check", "--diff")
    assert run.code == 0, run.tail
    assert "packages would be upgraded" in run.output
    assert "docker.io 20" in run.output and "-> 99:1" in run.output
    assert on(NAME, state) == before


def test_the_playbook_takes_held_packages_along_and_containers_live_on(hosts: Path) -> None:
    on(NAME, "apt-get -qq install busybox-static")
    on(NAME, "tar -C /bin -c busybox | docker import - box; docker run --detach --name box box /busybox sleep 999")
    started = on(NAME, "docker inspect -f '{{.State.Running}} {{.State.StartedAt}}' box")
    assert started.startswith("true")
    # nginx runs on a program that is not on the disk any more, as after an upgrade of something it uses.
    on(NAME, "cp --archive /usr/sbin/nginx /usr/sbin/nginx.new; mv /usr/sbin/nginx.new /usr/sbin/nginx")
    run = playbook(hosts, PLAYBOOK, "--limit", "first")
    assert run.code == 0, run.tail
    assert "docker.io\t99:1" in versions() and "postgresql-15\t99:1" in versions()
    assert re.search(r"restarted: .*nginx\.service", run.output), run.tail
    assert on(NAME, "docker inspect -f '{{.State.Running}} {{.State.StartedAt}}' box") == started
    assert on(NAME, "apt-mark showhold").split() == sorted(HELD)
    again = playbook(hosts, PLAYBOOK, "--limit", "first")
    assert again.code == 0 and again.count("changed") == 0, again.tail


def test_a_reboot_is_asked_for_and_all_is_well_after_it(hosts: Path) -> None:
    def power_on() -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            state = subprocess.run(
                ["docker", "inspect", "-f", "{{.State.Running}}", NAME], capture_output=True, text=True, check=False
            )
            if state.stdout.strip() == "false":
                # The container is off, as a machine is for a moment in a reboot.
                subprocess.run(["docker", "start", NAME], check=True, capture_output=True)
                droplet.wait_for_boot(NAME)
                return
            time.sleep(0.5)

    before = on(NAME, "systemctl show --property=UserspaceTimestamp --value")
    thread = threading.Thread(target=power_on)
    thread.start()
    run = playbook(hosts, PLAYBOOK, "--limit", "first", "-e", "reboot=always")
    thread.join()
    assert run.code == 0, run.tail
    assert on(NAME, "systemctl show --property=UserspaceTimestamp --value") != before
    assert "Health | See that all of it is again" in run.output


def test_a_word_that_is_none_is_refused(hosts: Path) -> None:
    run = playbook(hosts, PLAYBOOK, "-e", "reboot=allways")
    assert run.code != 0 and "none of needed" in run.output, run.tail


def test_the_first_droplet_that_is_worse_than_before_is_the_last(hosts: Path) -> None:
    for name in (NAME, SECOND):
        offer(name, "99:2", "systemctl disable --now nginx.service || true", "tzdata")
    run = playbook(hosts, PLAYBOOK)
    assert run.code != 0, run.tail
    assert "service nginx.service: not running" in run.output and f"site {DOMAIN}" in run.output
    assert "tzdata\t99:2" in versions()
    assert "99:2" not in versions(SECOND)


def drain(hosts: Path, state: str) -> Run:
    words = [
        "first",
        "--inventory",
        str(hosts),
        "--become",
        "--user",
        "deploy",
        "--module-name",
        "shipshape.droplet.drain",
    ]
    done = subprocess.run(
        [str(BIN / "ansible"), *words, "--args", f"ports=20999 state={state} patience=2"], cwd=PROJECT, text=True,
        env=environment(), stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    return Run(done.returncode, done.stdout + done.stderr)


def test_a_drained_droplet_refuses_who_comes_and_keeps_who_is_there(hosts: Path) -> None:
    on(NAME, "ufw allow proto tcp from any to any port 20999 >/dev/null")
    subprocess.Popen(["docker", "exec", NAME, "python3", "-c", ECHO], stdin=subprocess.DEVNULL)
    on(SECOND, f"for n in 1 2 3 4 5; do timeout 1 bash -c '</dev/tcp/{ADDRESS}/20999' && break; sleep 1; done")
    said = f"exec 3<>/dev/tcp/{ADDRESS}/20999; echo one >&3; head -n1 <&3; sleep 15; echo two >&3; head -n1 <&3"
    with subprocess.Popen(["docker", "exec", SECOND, "bash", "-c", said], stdout=subprocess.PIPE, text=True) as there:
        assert there.stdout is not None and there.stdout.readline() == "one\n"
        drained = drain(hosts, "drained")
        assert drained.code == 0 and '"connected": 1' in drained.output, drained.tail
        assert "refused" in on(SECOND, f"exec 3<>/dev/tcp/{ADDRESS}/20999")
        assert there.stdout.readline() == "two\n"
    assert "shipshape-drain-end.timer" in on(NAME, "systemctl list-timers --no-pager")
    assert drain(hosts, "serving").code == 0
    assert on(SECOND, f"exec 3<>/dev/tcp/{ADDRESS}/20999 && echo in") == "in"
    assert "shipshape-drain" not in on(NAME, "iptables -S; ip6tables -S; systemctl list-timers --no-pager")
    on(NAME, "ufw delete allow proto tcp from any to any port 20999 >/dev/null")
