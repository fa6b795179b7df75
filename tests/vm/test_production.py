"""A machine of its own kernel from bare to production, through a restart, audited, and through power cuts.

The tests build on each other, in this order.
"""

from __future__ import annotations

import re
import time

import pytest

from tests.audit import __main__ as audit
from tests.audit import openscap, probe, report, waivers
from tests.audit.model import judge
from tests.audit.target import Target
from tests.lab import settings
from tests.lab.engine import say
from tests.site.system import Run, fetch
from tests.vm.audit_rules import canonicals
from tests.vm.operator import ADMIN, DOMAIN, Operator
from tests.vm.power import cut_while_changing, way_in_state

#: As roles/hardening/defaults has it. The kernel keeps a page of the file for itself.
SWAP_BYTES, PAGE = 1024 * 2**20, 4096
#: What counts is opened to the world; nginx also answers on IPv6, sshd on the port it has now.
DECLARED = {("tcp", 22), ("tcp", 80), ("tcp", 443)}
AFTER_SITE, AFTER_REBOOT = "after site.yml", "after a reboot"


@pytest.fixture(scope="module")
def first_run(bare: Operator) -> Run:
    began = time.monotonic()
    run = bare.play("site.yml")
    say(f"first run of site.yml: {time.monotonic() - began:.0f} s")
    return run


@pytest.fixture(scope="module", params=[AFTER_SITE, AFTER_REBOOT])
def production(request: pytest.FixtureRequest, bare: Operator, first_run: Run) -> Operator:
    """What holds when site.yml has run must hold after a restart, too."""
    assert first_run.code == 0, first_run.tail
    if request.param == AFTER_REBOOT:
        bare.machine.reboot(ADMIN)
        bare.machine.wait_for(ADMIN)
    return bare


def root(operator: Operator, script: str) -> str:
    return operator.machine.ssh(script, ADMIN)


def test_no_unit_has_failed(production: Operator) -> None:
    assert root(production, "systemctl list-units --failed --plain --no-legend") == ""


def test_apps_answer_over_https(production: Operator) -> None:
    deadline = time.monotonic() + 600
    while True:
        answer = fetch(f"https://api.{DOMAIN}/health", production.machine.address, {}, None)
        # Emulated, it takes a while until it listens after a restart; nobody is led to it before.
        if answer.status == 200 or time.monotonic() > deadline:
            break
        time.sleep(2)
    assert answer.status == 200, answer


def test_swap_is_in_use_and_of_the_declared_size(production: Operator) -> None:
    shown = root(production, "swapon --show=NAME,SIZE --bytes --noheadings").split()
    assert shown == ["/swapfile", str(SWAP_BYTES - PAGE)]


def test_kernel_settings_are_in_force(production: Operator) -> None:
    """Each of them: another file that sorts later, or a service that sets its own, would win after a restart."""
    declared = root(production, "grep -hv -e '^#' -e '^$' /etc/sysctl.d/99-shipshape.conf")
    wanted = {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in declared.splitlines())}
    assert len(wanted) > 10
    found = root(production, f"sysctl {' '.join(name.lstrip('-') for name in wanted)}")
    values = {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in found.splitlines())}
    assert values == {name.lstrip("-"): value for name, value in wanted.items()}


def test_journal_is_kept_on_disk(production: Operator) -> None:
    assert root(production, "ls /var/log/journal/$(cat /etc/machine-id)/system.journal")
    header = root(production, "journalctl --header --system | grep 'File path'")
    assert "/var/log/journal/" in header and "/run/log/journal/" not in header


def test_clock_is_kept_by_timesyncd(production: Operator) -> None:
    assert root(production, "systemctl is-active systemd-timesyncd.service") == "active"
    assert root(production, "timedatectl show --property=NTP --value") == "yes"


def test_apparmor_enforces_every_loaded_profile(production: Operator) -> None:
    assert root(production, "aa-enabled") == "Yes"
    lines = root(production, "cat /sys/kernel/security/apparmor/profiles").splitlines()
    profiles = dict(line.rsplit(" ", 1) for line in lines)
    assert "docker-default" in profiles
    assert set(profiles.values()) == {"(enforce)"}, profiles


def test_audit_rules_of_the_files_are_those_in_the_kernel(production: Operator) -> None:
    assert root(production, "systemctl is-active auditd.service") == "active"
    declared = canonicals(root(production, "cat /etc/audit/rules.d/*.rules").splitlines())
    assert canonicals(root(production, "auditctl -l | grep -v 'No rules'; true").splitlines()) == declared


def test_a_ban_of_fail2ban_is_in_the_kernels_firewall(production: Operator) -> None:
    root(production, "fail2ban-client set sshd banip 192.0.2.9")
    rules = "(iptables-save; nft list ruleset 2>/dev/null || true) | grep -F 192.0.2.9 || true"
    banned = root(production, rules)
    root(production, "fail2ban-client set sshd unbanip 192.0.2.9")
    assert banned and not root(production, rules)


def test_firewall_is_in_force(production: Operator) -> None:
    assert "Status: active" in root(production, "ufw status")
    assert "-P INPUT DROP" in root(production, "iptables -S INPUT")
    assert "--dport 22 -j ACCEPT" in root(production, "iptables -S ufw-user-input")


def test_docker_runs_a_container_confined_by_apparmor(production: Operator) -> None:
    """Without a registry: the container is made of one program and the libraries it loads."""
    confined = root(
        production,
        "tar --create --dereference --directory=/ usr/bin/cat $(ldd /usr/bin/cat | grep -o '/[^ ]*' | sed 's,^/,,')"
        " | docker import - shipshape-probe >/dev/null;"
        " docker run --rm shipshape-probe /usr/bin/cat /proc/self/attr/current;"
        " docker image rm shipshape-probe >/dev/null",
    )
    assert confined == "docker-default (enforce)"


# -- the machine has been restarted from here on -----------------------------------------------------------------------


def test_journal_of_the_time_before_the_restart_is_there(bare: Operator) -> None:
    assert len(root(bare, "journalctl --list-boots --quiet").splitlines()) >= 2


def test_second_run_changes_nothing(bare: Operator) -> None:
    began = time.monotonic()
    run = bare.play("site.yml")
    seconds = time.monotonic() - began
    assert (run.code, run.count("changed")) == (0, 0), run.tail
    began = time.monotonic()
    assert bare.ping().code == 0
    ping = time.monotonic() - began
    say(f"second run: {seconds:.1f} s; ansible -m ping: {ping:.1f} s; ratio {seconds / ping:.1f}")


def test_verify_finds_everything_as_declared(bare: Operator) -> None:
    run = bare.play("playbooks/verify.yml")
    assert run.code == 0, run.tail
    assert run.count("changed") == 0, run.tail


def test_auditors_give_an_opinion(bare: Operator) -> None:
    """What they say is printed; whether it is good enough, `make audit` decides."""
    excused = waivers.read(waivers.FILE, audit.AUDITORS, audit.IMAGES)
    folder = settings.STATE / "vm" / "audit"
    folder.mkdir(parents=True, exist_ok=True)
    guide = audit.FOLDER / "guide"
    openscap.guide(guide)
    probe.install()
    target = Target(bare.machine.address, ADMIN, patience=3600)
    judgement = judge(audit.ask_all(target, folder, guide, DECLARED), excused, audit.VM)
    print(f"\n{report.terminal(judgement, 'a virtual machine, after site.yml and a reboot')}", flush=True)
    (folder / "report.html").write_text(report.html(judgement, "a virtual machine", []), encoding="utf-8")
    silent = [verdict.result.figure for verdict in judgement.verdicts if not verdict.result.spoke]
    assert not silent


def test_ssh_port_moves_there_and_back(bare: Operator) -> None:
    there = bare.harden(hardening_ssh_port=2222)
    assert there.code == 0, there.tail
    assert bare.machine.gets_root(ADMIN, 2222) and not bare.machine.gets_root(ADMIN)
    back = bare.harden(ansible_port=2222)
    assert back.code == 0, back.tail
    assert bare.machine.gets_root(ADMIN) and not bare.machine.gets_root(ADMIN, 2222)


@pytest.mark.parametrize("moment", ["armed", "made"])
def test_a_change_to_the_way_in_that_a_power_cut_interrupts_is_taken_back(bare: Operator, moment: str) -> None:
    before = way_in_state(bare.machine)
    cut_while_changing(bare, ADMIN, moment)
    assert bare.machine.gets_root(ADMIN)
    assert way_in_state(bare.machine) == before
    run = bare.harden()
    assert run.code == 0 and "that nobody confirmed was taken back" in run.output, run.tail
    changed = re.findall(r"^changed: .*$", run.output, re.MULTILINE)
    assert not changed, run.tail
