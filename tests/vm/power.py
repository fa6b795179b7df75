"""Pull the plug while the way into a machine is being changed."""

from __future__ import annotations

import subprocess
import time

from tests.vm.machine import Machine
from tests.vm.operator import Operator, give_up

ARMED = "/var/lib/shipshape/way-in/armed"
#: The droplet's own patience, as long as may be: it must not run out before the plug is pulled.
PATIENCE = 600
CHANGE_TIMEOUT = 1200
#: All that decides who gets in, as text.
STATE = (
    "cd /etc && sha256sum ssh/sshd_config.d/* sudoers.d/* ufw/user*.rules default/ufw fail2ban/jail.d/*"
    " $(ls /home/*/.ssh/authorized_keys); ls ssh/sshd_config.d sudoers.d systemd/system/ssh.socket.d 2>&1 || true;"
    " grep ^ENABLED ufw/ufw.conf; sshd -T | sort | sha256sum; iptables -S ufw-user-input;"
    " getent passwd deploy ops || true; getent group sudo"
)


def way_in_state(machine: Machine, user: str = "deploy") -> str:
    return machine.ssh(STATE, user)


def lost_key(operator: Operator) -> str:
    """A public key whose other half nobody has."""
    path = operator.folder / "lost"
    if not path.exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lost", "-f", path], check=True)
    return path.with_suffix(".pub").read_text(encoding="utf-8").strip()


def cut_while_changing(operator: Operator, user: str, moment: str) -> None:
    """Replace the user's way in by a key that nobody has, and cut the power: once the change is `armed`, or `made`.

    The controller dies with the power, so nobody takes the change back but the machine itself, at its next boot.
    Returns when the machine has.
    """
    machine = operator.machine
    admins = [{"name": "deploy", "ssh_keys": [lost_key(operator)]}]
    watch = subprocess.Popen(
        machine.ssh_command(f"until test -e {ARMED}; do sleep 0.3; done", user),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    output = operator.folder / "interrupted.log"
    with output.open("wb") as stream:
        run = operator.begin_to_harden(stream, admins=admins, hardening_revert_seconds=PATIENCE)
    try:
        deadline = time.monotonic() + CHANGE_TIMEOUT
        while watch.poll() is None:
            alive = run.poll() is None and time.monotonic() < deadline
            assert alive, f"no change was armed:\n{output.read_text(encoding='utf-8')[-6000:]}"
            time.sleep(0.1)
        assert watch.returncode == 0, f"the connection to {machine.name} was lost"
    finally:
        watch.kill()
        give_up(run)
    if moment == "made":
        deadline = time.monotonic() + 300
        while machine.gets_root(user):
            assert time.monotonic() < deadline, "the change was never made"
            time.sleep(1)
    machine.power_cycle(user)
    deadline = time.monotonic() + 120
    while machine.try_ssh(f"test -e {ARMED} && echo armed || echo taken back", user) != "taken back":
        assert time.monotonic() < deadline, "the change was not taken back"
        time.sleep(1)
