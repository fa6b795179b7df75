"""The probe against sockets of this machine."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest
from ansible_collections.shipshape.droplet.plugins.plugin_utils import probe


@pytest.fixture
def listener() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_the_probe_names_exactly_the_tcp_ports_that_listen(listener: int) -> None:
    answers = probe.tcp("127.0.0.1", range(listener - 50, min(listener + 50, 65536)))
    assert ("tcp", listener) in answers.open
    assert answers.own == "127.0.0.1"
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        assert probe.tcp("127.0.0.1", [closed.getsockname()[1]]).open == frozenset()


def test_the_probe_speaks_ipv6() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        port = server.getsockname()[1]
        assert probe.tcp("::1", [port]).open == {("tcp", port)}


def test_a_silent_port_costs_no_more_than_the_patience() -> None:
    # The backlog is full: the kernel drops further connections without a word, as a firewall does.
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        port = server.getsockname()[1]
        fill = [socket.socket() for _ in range(3)]
        for one in fill:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        begin = time.monotonic()
        assert probe.tcp("127.0.0.1", [port], patience=0.3).open == frozenset()
        assert time.monotonic() - begin < 1
        for one in fill:
            one.close()


def test_all_ports_are_asked_with_few_descriptors(listener: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "AT_ONCE", 60)
    assert ("tcp", listener) in probe.tcp("127.0.0.1").open


def test_a_udp_service_that_answers_is_open_and_silence_is_not() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as server, socket.socket(type=socket.SOCK_DGRAM) as shy:
        server.bind(("127.0.0.1", 0))
        shy.bind(("127.0.0.1", 0))
        ports = server.getsockname()[1], shy.getsockname()[1]

        def answer() -> None:
            _question, client = server.recvfrom(100)
            server.sendto(b"yes", client)

        threading.Thread(target=answer, daemon=True).start()
        found = probe.udp("127.0.0.1", dict.fromkeys((*ports, 1), b"?"), patience=0.5)
    assert found.open == {("udp", ports[0])}
