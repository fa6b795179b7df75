"""An operator does something dangerous to the way in; after at most two minutes somebody authorised is root again.

One hardened droplet for all. Each test arranges a danger, runs the playbook, looks from outside who gets in, removes
the danger, and sees that the same command then runs to its end.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.lab import droplet, settings
from tests.site.system import BIN, PROJECT, Run, descendants, environment

NAME, ADDRESS = "shipshape-lockout", "10.77.0.46"
#: The droplet's own patience in these tests, in seconds.
PATIENCE = 15
IMAGE = os.environ.get("SHIPSHAPE_IMAGE", settings.DEFAULT_RELEASE)


class Operator:
    """Somebody with an inventory, a key, and a droplet's console (as a provider has it) to arrange dangers with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = settings.SSH_KEY
        self.public = settings.SSH_KEY.with_suffix(".pub").read_text(encoding="utf-8").strip()

    def new_key(self, name: str) -> Path:
        path = self.folder / name
        if not path.exists():
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", path], check=True)
        return path

    def public_of(self, key: Path) -> str:
        return key.with_suffix(".pub").read_text(encoding="utf-8").strip()

    def command(self, bans: bool = False, **variables: Any) -> list[str]:
        everything = {
            "ansible_host": ADDRESS,
            "ansible_ssh_private_key_file": str(self.key),
            "ansible_ssh_common_args": f"-o UserKnownHostsFile={settings.KNOWN_HOSTS}",
            "acme_email": "ops@lockout.test",
            "admins": [{"name": "deploy", "ssh_keys": [self.public]}],
            "hardening_revert_seconds": PATIENCE,
            # These tests fail to log in all the time, and not only where an operator would.
            "hardening_fail2ban_ignore": [] if bans else ["10.77.0.0/24"],
            **variables,
        }
        inventory = self.folder / "hosts.yml"
        inventory.write_text(yaml.safe_dump({"app": {"hosts": {"lockout": everything}}}), encoding="utf-8")
        return [str(BIN / "ansible-playbook"), "playbooks/hardening.yml", "-i", str(inventory), "--diff"]

    def harden(self, *arguments: str, **variables: Any) -> Run:
        result = subprocess.run(
            [*self.command(**variables), *arguments],
            cwd=PROJECT, env=environment(), text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300, check=False,
        )  # fmt: skip
        return Run(result.returncode, result.stdout)

    def harden_and_die(self, **variables: Any) -> None:
        """Kill the controller and its workers with SIGKILL once the droplet has armed its timer."""
        process = subprocess.Popen(
            self.command(**variables), cwd=PROJECT, env=environment(), stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        deadline = time.monotonic() + 120
        while not self.console("test -e /var/lib/shipshape/way-in/armed && echo armed"):
            assert process.poll() is None and time.monotonic() < deadline, "the run ended before a change was armed"
        for child in descendants(process.pid):
            os.kill(child, signal.SIGKILL)
        process.wait(timeout=30)

    def console(self, script: str) -> str:
        command = ["docker", "exec", NAME, "bash", "-c", script]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    def gets_root(self, user: str = "deploy", port: int = 22, key: Path | None = None) -> bool:
        command = ["ssh", "-i", str(key or self.key), "-o", f"UserKnownHostsFile={settings.KNOWN_HOSTS}"]
        command += [
            "-o",
            "BatchMode=yes",
            "-o",
            "ControlPath=none",
            "-o",
            "ConnectTimeout=3",
            "-o",
            "IdentitiesOnly=yes",
        ]
        command += ["-p", str(port), f"{user}@{ADDRESS}", "sudo -n id -un"]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
        return done.stdout.strip() == "root"

    def waits_for_root(self, user: str = "deploy", port: int = 22) -> float:
        """Seconds until that user gets in; two minutes are the promise."""
        began = time.monotonic()
        while not self.gets_root(user, port):
            assert time.monotonic() - began < 120, f"{user} is locked out on port {port}"
            time.sleep(1)
        return time.monotonic() - began

    def waits_for_revert(self) -> float:
        """Seconds until the droplet has taken an unconfirmed change back by itself; two minutes are the promise."""
        began = time.monotonic()
        while self.console("test -e /var/lib/shipshape/way-in/armed && echo armed"):
            assert time.monotonic() - began < 120, "nothing was taken back"
            time.sleep(0.5)
        return time.monotonic() - began

    @property
    def state(self) -> str:
        """All that decides who gets in, as text."""
        return self.console(
            "cd /etc && sha256sum ssh/sshd_config.d/* sudoers.d/* ufw/user*.rules default/ufw fail2ban/jail.d/*"
            " $(ls /home/*/.ssh/authorized_keys); ls ssh/sshd_config.d sudoers.d; grep ^ENABLED ufw/ufw.conf;"
            " sshd -T | sort | sha256sum; iptables -S ufw-user-input; getent passwd deploy ops; getent group sudo"
        )


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    droplet.remove(NAME)
    droplet.start(NAME, IMAGE, ADDRESS)
    yield Operator(tmp_path_factory.mktemp("lockout"))
    droplet.remove(NAME)


def weak_key(operator: Operator) -> str:
    """Give the droplet an RSA host key as machines of some years ago have it; returns its fingerprint."""
    key = "/etc/ssh/ssh_host_rsa_key"
    operator.console(f"rm {key}; ssh-keygen -q -t rsa -b 2048 -N '' -f {key}; systemctl reload ssh; sleep 1")
    assert rsa_key(operator).startswith("2048 ")
    return rsa_key(operator)


def rsa_key(operator: Operator, port: int = 22) -> str:
    """Bits and fingerprint of the RSA key that sshd shows, as seen from here; the file's must be the same."""
    command = f"ssh-keyscan -t rsa -p {port} {ADDRESS} 2>/dev/null | ssh-keygen -l -f -"
    shown = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True).stdout
    kept = operator.console(
        "ssh-keygen -l -f /etc/ssh/ssh_host_rsa_key; ssh-keygen -l -f /etc/ssh/ssh_host_rsa_key.pub"
    )
    (found,) = {" ".join(line.split()[:2]) for line in f"{shown}{kept}".splitlines()}
    return found


@pytest.fixture(scope="module")
def hardened(bare: Operator) -> Operator:
    run = bare.harden()
    assert run.code == 0, run.tail
    return bare


@pytest.fixture
def operator(hardened: Operator) -> Iterator[Operator]:
    """The droplet as hardened; afterwards it must be as before, and the same command must change nothing."""
    before = hardened.state
    yield hardened
    hardened.waits_for_revert()
    run = hardened.harden()
    assert run.code == 0, run.tail
    assert hardened.state == before
    assert not hardened.console("ls -A /var/lib/shipshape/way-in | grep -v -e admins -e lock")


# -- the first run, on a bare droplet: root is the only way in ---------------------------------------------------------


def test_first_run_with_a_key_that_nobody_has(bare: Operator) -> None:
    before = bare.console("sshd -T")
    run = bare.harden(admins=[{"name": "deploy", "ssh_keys": [bare.public_of(bare.new_key("lost"))]}])
    assert run.code != 0 and "After the change no admin could log in anew" in run.output, run.tail
    assert "Everything is as it was before" in run.output
    assert bare.gets_root("root")
    assert bare.console("ufw status") == "Status: inactive"
    assert bare.console("sshd -T") == before
    # What packages own is theirs again, and nothing is kept of it that a later run would take for older than it is.
    assert bare.console("dpkg --verify base-files login passwd | grep /etc") == ""
    assert bare.console("find /var/lib/shipshape/originals ! -type d") == ""


def test_first_run_whose_controller_is_killed(bare: Operator) -> None:
    bare.harden_and_die()
    assert bare.waits_for_revert() < PATIENCE + 10
    assert bare.gets_root("root")


def test_first_run_with_a_sudo_drop_in_that_asks_admins_for_a_password(bare: Operator) -> None:
    bare.console(
        "echo 'deploy ALL=(ALL:ALL) PASSWD: ALL' > /etc/sudoers.d/99-local; chmod 0440 /etc/sudoers.d/99-local"
    )
    run = bare.harden()
    bare.console("rm /etc/sudoers.d/99-local")
    assert run.code != 0 and "a password is required" in run.output, run.tail
    assert bare.gets_root("root")


def test_first_run_where_the_droplet_restarts_before_the_proof(bare: Operator) -> None:
    bare.harden_and_die(hardening_revert_seconds=600)
    # The droplet finishes what it was told, with nobody there to confirm it.
    deadline = time.monotonic() + 60
    while bare.gets_root("root"):
        assert time.monotonic() < deadline, "the change was never made"
        time.sleep(1)
    # Not the lab's own restart, which wants every unit up: Debian's fail2ban does not start as its package leaves it.
    subprocess.run(["docker", "restart", "--time=20", NAME], check=True, capture_output=True)
    assert bare.waits_for_root("root") < 60


# -- later runs, on a hardened droplet ---------------------------------------------------------------------------------


def test_a_weak_host_key_is_replaced_once_and_comes_back_when_nobody_confirms(operator: Operator) -> None:
    weak = weak_key(operator)
    run = operator.harden(admins=[{"name": "deploy", "ssh_keys": [operator.public_of(operator.new_key("lost"))]}])
    assert run.code != 0 and "Permission denied" in run.output, run.tail
    assert rsa_key(operator) == weak and operator.gets_root()
    foretold = operator.harden("--check")
    assert "make /etc/ssh/ssh_host_rsa_key anew (had 2048 bits)" in foretold.output, foretold.tail
    assert rsa_key(operator) == weak
    kept = operator.harden(hardening_skip=["ssh_host_keys"])
    assert (kept.code, kept.count("changed"), rsa_key(operator)) == (0, 0, weak), kept.tail
    others = operator.console("sha256sum /etc/ssh/ssh_host_e*")
    run = operator.harden()
    assert run.code == 0 and "a weak host key is replaced: /etc/ssh/ssh_host_rsa_key (2048 bits)" in run.output, (
        run.tail
    )
    assert "PRIVATE KEY" not in run.output
    strong = rsa_key(operator)
    assert strong.startswith("4096 ") and operator.console("sha256sum /etc/ssh/ssh_host_e*") == others
    assert operator.console("stat --format %a:%U /etc/ssh/ssh_host_rsa_key") == "600:root"
    again = operator.harden()
    assert (again.code, again.count("changed"), rsa_key(operator)) == (0, 0, strong), again.tail


def test_a_wrong_key_leaves_the_old_one_working(operator: Operator) -> None:
    run = operator.harden(admins=[{"name": "deploy", "ssh_keys": [operator.public_of(operator.new_key("lost"))]}])
    assert run.code != 0 and "Permission denied" in run.output, run.tail
    assert operator.gets_root()


def test_a_new_port_that_is_blocked_on_the_way(operator: Operator) -> None:
    operator.console("iptables -t raw -I PREROUTING -p tcp --dport 2222 -j DROP")
    run = operator.harden(hardening_ssh_port=2222)
    operator.console("iptables -t raw -D PREROUTING -p tcp --dport 2222 -j DROP")
    assert run.code != 0 and "deploy, port 2222: " in run.output, run.tail
    assert operator.gets_root()
    assert not operator.gets_root(port=2222)


def test_the_controller_is_killed_between_change_and_proof(operator: Operator) -> None:
    renamed = [{"name": "ops", "ssh_keys": [operator.public]}]
    operator.harden_and_die(hardening_ssh_port=2222, admins=renamed, ansible_user="deploy")
    assert operator.waits_for_revert() < PATIENCE + 10
    assert operator.gets_root()
    assert not operator.gets_root("ops") and not operator.gets_root(port=2222)
    operator.console("userdel --remove ops")


def test_the_next_run_does_not_wait_for_the_timer_of_a_dead_one(operator: Operator) -> None:
    operator.harden_and_die(hardening_revert_seconds=600, hardening_ssh_port=2222)
    run = operator.harden()
    assert run.code == 0 and "that nobody confirmed was taken back" in run.output, run.tail
    assert operator.gets_root() and not operator.gets_root(port=2222)


def test_what_cannot_be_put_back_whole_is_not_forgotten(operator: Operator) -> None:
    operator.harden_and_die(hardening_revert_seconds=600, hardening_ssh_port=2222)
    kept = "/var/lib/shipshape/way-in/before.tar"
    # As when the disk is full, or somebody has cleaned up.
    operator.console(f"cp {kept} /root/kept.tar; head -c 1000 /root/kept.tar > {kept}")
    said = operator.console("/usr/local/lib/shipshape/way-in revert 2>&1; echo $?; ls /var/lib/shipshape/way-in/armed")
    assert "could be put back" in said and said.splitlines()[-2:] == ["1", "/var/lib/shipshape/way-in/armed"]
    operator.console(f"mv /root/kept.tar {kept}")
    run = operator.harden()
    assert run.code == 0 and operator.gets_root() and not operator.gets_root(port=2222), run.tail


def test_a_port_that_another_service_has_is_refused(operator: Operator) -> None:
    operator.console("systemd-run --unit squatter python3 -m http.server 2222")
    time.sleep(1)
    before = operator.state
    run = operator.harden(hardening_ssh_port=2222)
    assert run.code != 0 and "hardening_ssh_port is 2222, where python3 listens" in run.output, run.tail
    assert operator.state == before
    operator.console("systemctl stop squatter")


def test_a_firewall_that_does_not_know_the_operators_address_is_refused(operator: Operator) -> None:
    before = operator.state
    run = operator.harden(hardening_ssh_sources=["192.0.2.0/24"])
    assert run.code != 0 and "hardening_ssh_sources does not contain 10.77.0." in run.output, run.tail
    assert operator.state == before


def test_a_firewall_for_the_operators_network_only_is_accepted(operator: Operator) -> None:
    run = operator.harden(hardening_ssh_sources=["10.77.0.0/24"])
    assert run.code == 0, run.tail
    assert operator.gets_root()
    assert "-s 10.77.0.0/24 -p tcp -m tcp --dport 22 -j ACCEPT" in operator.console("iptables -S ufw-user-input")


def test_an_sshd_that_would_not_start_is_refused(operator: Operator) -> None:
    operator.console("echo 'NoSuchOption yes' > /etc/ssh/sshd_config.d/50-local.conf")
    run = operator.harden(hardening_fail2ban_max_retry=7)
    operator.console("rm /etc/ssh/sshd_config.d/50-local.conf")
    assert run.code != 0 and "ssh is broken on this host already" in run.output, run.tail
    assert operator.gets_root()


def test_a_broken_sudo_configuration_is_refused(operator: Operator) -> None:
    operator.console("echo 'deploy ALL=(ALL' > /etc/sudoers.d/99-local; chmod 0440 /etc/sudoers.d/99-local")
    run = operator.harden(hardening_fail2ban_max_retry=7)
    operator.console("rm /etc/sudoers.d/99-local")
    assert run.code != 0 and "sudo's configuration is broken on this host already" in run.output, run.tail
    assert operator.gets_root()


def test_a_file_of_somebody_that_outranks_ours_is_found_out(operator: Operator) -> None:
    operator.console("echo 'PermitRootLogin yes' > /etc/ssh/sshd_config.d/00-first.conf")
    run = operator.harden(hardening_fail2ban_max_retry=7)
    operator.console("rm /etc/ssh/sshd_config.d/00-first.conf; systemctl reload ssh")
    assert run.code != 0 and "missing: permitrootlogin no" in run.output, run.tail
    assert operator.waits_for_root() < 5


def test_somebody_elses_list_of_users_shuts_a_new_admin_out(operator: Operator) -> None:
    operator.console("echo 'AllowUsers deploy' > /etc/ssh/sshd_config.d/50-local.conf; systemctl reload ssh")
    run = operator.harden(admins=[{"name": "ops", "ssh_keys": [operator.public]}], ansible_user="deploy")
    assert run.code != 0 and "ops, port 22: " in run.output, run.tail
    # The change took sudo from the one who made it, so the droplet has to help itself.
    assert "by itself within" in run.output and operator.waits_for_root() < PATIENCE + 10
    operator.console("rm /etc/ssh/sshd_config.d/50-local.conf; systemctl reload ssh; sleep 1; userdel --remove ops")


def test_a_home_that_sshd_does_not_trust(operator: Operator) -> None:
    operator.console("useradd --create-home --shell /bin/bash ops && chmod 0777 /home/ops")
    run = operator.harden(admins=[{"name": "ops", "ssh_keys": [operator.public]}], ansible_user="deploy")
    assert run.code != 0 and "ops, port 22: " in run.output, run.tail
    # The change took sudo from the one who made it, so the droplet has to help itself.
    assert "by itself within" in run.output and operator.waits_for_root() < PATIENCE + 10
    operator.console("userdel --remove ops")


def test_another_file_that_keeps_the_old_port(operator: Operator) -> None:
    operator.console("echo 'Port 22' > /etc/ssh/sshd_config.d/50-local.conf; systemctl reload ssh; sleep 1")
    run = operator.harden(hardening_ssh_port=2222)
    assert run.code != 0 and "another file in /etc/ssh/sshd_config.d say Port too" in run.output, run.tail
    assert operator.gets_root() and operator.gets_root(port=2222)
    operator.console("rm /etc/ssh/sshd_config.d/50-local.conf; systemctl reload ssh; sleep 1")


def test_the_only_admin_is_replaced_by_another(operator: Operator) -> None:
    run = operator.harden(admins=[{"name": "ops", "ssh_keys": [operator.public]}], ansible_user="deploy")
    assert run.code == 0, run.tail
    assert operator.gets_root("ops") and not operator.gets_root()
    back = operator.harden(ansible_user="ops")
    assert back.code == 0, back.tail
    assert operator.gets_root() and not operator.gets_root("ops")
    operator.console("userdel --remove ops")


def test_the_port_moves_there_and_back_with_the_old_one_closed(operator: Operator) -> None:
    run = operator.harden(hardening_ssh_port=2222)
    assert run.code == 0, run.tail
    assert operator.gets_root(port=2222) and not operator.gets_root()
    again = operator.harden(hardening_ssh_port=2222)
    assert (again.code, again.count("changed")) == (0, 0), again.tail
    back = operator.harden(ansible_port=2222)
    assert back.code == 0, back.tail
    assert operator.gets_root() and not operator.gets_root(port=2222)


def test_an_admin_who_is_taken_off_the_list_is_gone_though_logged_in(operator: Operator) -> None:
    key = operator.new_key("leaver")
    both = [
        {"name": "deploy", "ssh_keys": [operator.public]},
        {"name": "leaver", "ssh_keys": [operator.public_of(key)]},
    ]
    run = operator.harden(admins=both)
    assert run.code == 0, run.tail
    assert operator.gets_root("leaver", key=key)
    operator.console("echo '* * * * * true' | crontab -u leaver -")
    command = ["ssh", "-i", str(key), "-o", f"UserKnownHostsFile={settings.KNOWN_HOSTS}", "-o", "BatchMode=yes"]
    session = subprocess.Popen([*command, f"leaver@{ADDRESS}", "sleep 300"], stdin=subprocess.DEVNULL)
    time.sleep(2)
    assert session.poll() is None
    run = operator.harden()
    assert run.code == 0, run.tail
    session.wait(timeout=10)
    assert not operator.gets_root("leaver", key=key)
    left = operator.console(
        "ls /home/leaver/.ssh/authorized_keys; crontab -u leaver -l; id -nG leaver; pgrep -u leaver"
    )
    assert left == "leaver", left


def test_a_droplet_of_another_environment_is_refused_until_that_is_confirmed(operator: Operator) -> None:
    assert operator.harden(environment_name="production").code == 0
    before = operator.state
    for other in ({"environment_name": "staging"}, {}, {"environment_name": "staging", "confirm_environment": "test"}):
        refused = operator.harden(hardening_fail2ban_max_retry=7, **other)
        assert refused.code != 0 and "lockout (10.77.0.46) belongs to 'production'" in refused.output, refused.tail
    assert operator.state == before
    moved = operator.harden(environment_name="staging", confirm_environment="staging")
    assert moved.code == 0, moved.tail
    assert operator.harden(environment_name="staging").code == 0
    operator.console("rm /etc/shipshape/environment")
