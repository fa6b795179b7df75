"""Where systemd listens for sshd, as on Ubuntu since 22.10. The tests build on each other, in this order."""

from __future__ import annotations

from tests.lab.engine import say
from tests.vm.operator import ADMIN, Operator
from tests.vm.power import cut_while_changing


def test_a_first_run_that_a_power_cut_interrupts_leaves_root_the_way_in(bare_with_socket: Operator) -> None:
    operator = bare_with_socket
    cut_while_changing(operator, "root", "made")
    assert operator.machine.gets_root("root")
    assert operator.machine.ssh("systemctl is-active ssh.socket", "root") == "active"
    assert operator.machine.ssh("ufw status", "root") == "Status: inactive"


def test_a_machine_with_a_socket_is_hardened(bare_with_socket: Operator) -> None:
    run = bare_with_socket.harden()
    assert run.code == 0, run.tail
    assert bare_with_socket.machine.gets_root(ADMIN)
    assert not bare_with_socket.machine.gets_root("root")
    assert_listens_at(bare_with_socket, 22)


def test_port_of_the_socket_moves(bare_with_socket: Operator) -> None:
    run = bare_with_socket.harden(hardening_ssh_port=2222)
    assert run.code == 0, run.tail
    assert_listens_at(bare_with_socket, 2222)
    assert not bare_with_socket.machine.gets_root(ADMIN)


def test_port_of_the_socket_is_kept_by_a_restart(bare_with_socket: Operator) -> None:
    say(f"in again after {bare_with_socket.machine.reboot(ADMIN, 2222):.0f} s")
    assert_listens_at(bare_with_socket, 2222)
    again = bare_with_socket.harden(hardening_ssh_port=2222)
    assert (again.code, again.count("changed")) == (0, 0), again.tail


def test_port_of_the_socket_moves_back(bare_with_socket: Operator) -> None:
    run = bare_with_socket.harden(ansible_port=2222)
    assert run.code == 0, run.tail
    assert_listens_at(bare_with_socket, 22)
    assert not bare_with_socket.machine.gets_root(ADMIN, 2222)


def assert_listens_at(operator: Operator, port: int) -> None:
    """At that port alone, and by the socket: the service is nobody's but the socket's."""
    assert operator.machine.gets_root(ADMIN, port)
    shown = operator.machine.ssh("systemctl show --property=Listen --value ssh.socket", ADMIN, port)
    assert shown.split() == [f"[::]:{port}", "(Stream)"], shown
    assert operator.machine.try_ssh("systemctl is-enabled ssh.service || true", ADMIN, port) == "disabled"
    assert operator.machine.ssh("systemctl is-enabled ssh.socket", ADMIN, port) == "enabled"
