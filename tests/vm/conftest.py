"""One machine that is brought to production once, and another whose sshd is started by a socket."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab import repository, services, settings
from tests.vm import machine
from tests.vm.operator import DOMAINS, Operator


@pytest.fixture(scope="session", autouse=True)
def lab() -> None:
    services.ensure_services()
    repository.publish(settings.EXAMPLE, settings.EXAMPLE.name)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """Knows nothing but root's key. Gone after its module, so that one machine at a time loads the controller."""
    with machine.running(machine.Machine("shipshape-vm", "10.77.0.60", DOMAINS)) as started:
        yield Operator(started, tmp_path_factory.mktemp("vm"))


@pytest.fixture(scope="module")
def bare_with_socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """As Ubuntu has it since 22.10: systemd listens, and sshd starts when somebody connects."""
    with machine.running(machine.Machine("shipshape-vm-socket", "10.77.0.61")) as started:
        # One that was kept from the last time is hardened and has it already.
        if started.gets_root("root"):
            started.ssh(
                "systemctl disable --quiet --now ssh.service; systemctl enable --quiet --now ssh.socket", "root"
            )
        yield Operator(started, tmp_path_factory.mktemp("vm-socket"))
