"""Which ports of a machine answer, asked from here: plain connections, no privileges, nothing to install."""

from __future__ import annotations

import errno
import resource
import selectors
import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

ALL_TCP = range(1, 65536)
#: A lost packet is sent again by the kernel after one second; a port that is silent for longer is closed to us.
PATIENCE = 1.4
AT_ONCE = 4000
#: Descriptors that the process needs beside those of the probe.
SPARE = 100

_DNS = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x01"
_SSDP = b'M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: "ssdp:discover"\r\nMX: 1\r\nST: ssdp:all\r\n\r\n'
#: Common UDP services, and those of them that answer a question with the question.
UDP_PORTS = (
    *(53, 69, 111, 123, 137, 161, 389, 443, 500, 514, 623, 1194, 1434, 1701, 1812, 1900, 2049, 3478, 4500, 4789, 5060),
    *(5353, 5355, 5683, 8125, 11211, 51820, 60000),
)
_QUESTIONS = {
    53: _DNS,
    69: b"\0\1shipshape\0octet\0",
    111: bytes.fromhex("535353530000000000000002000186a00000000200000000" + "00000000" * 4),
    123: b"\x1b" + bytes(47),
    161: bytes.fromhex("302602010104067075626c6963a019020401020304020100020100300b300906052b060102010500"),
    623: bytes.fromhex("0600ff07000000000000000000092018c88100388e04b5"),
    1194: b"8" + bytes(13),
    1434: b"\2",
    1900: _SSDP,
    3478: bytes.fromhex("000100002112a442") + bytes(12),
    5353: _DNS,
    5355: _DNS,
    5683: b"\x40\1\0\1",
    11211: b"\0\1\0\0\0\1\0\0stats\r\n",
}
UDP_QUESTIONS = {port: _QUESTIONS.get(port, b"\0") for port in UDP_PORTS}


@dataclass(frozen=True)
class Answers:
    """What a machine said at one of its addresses."""

    address: str
    open: frozenset[tuple[str, int]]
    #: Our own address on the way there: a port may be meant for us alone.
    own: str = ""


@dataclass
class _Scan:
    address: str
    ports: Iterator[int]
    patience: float
    family: int
    found: set[int] = field(default_factory=set)
    own: str = ""
    waiting: dict[socket.socket, tuple[int, float]] = field(default_factory=dict)
    selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)

    def begin(self, port: int) -> None:
        one = socket.socket(self.family, socket.SOCK_STREAM)
        one.setblocking(False)
        # A probe leaves nothing behind, on neither side: it ends with a reset.
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        code = one.connect_ex((self.address, port))
        if code == 0:
            self.answered(one, port)
        elif code in (errno.EINPROGRESS, errno.EWOULDBLOCK):
            self.selector.register(one, selectors.EVENT_WRITE)
            self.waiting[one] = (port, time.monotonic() + self.patience)
        else:
            one.close()
            if code in (errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                raise OSError(code, f"{self.address}: no way there from here")

    def answered(self, one: socket.socket, port: int) -> None:
        self.found.add(port)
        self.own = str(one.getsockname()[0])
        one.close()

    def end(self, one: socket.socket) -> tuple[int, float]:
        self.selector.unregister(one)
        return self.waiting.pop(one)

    def run(self, at_once: int) -> None:
        more = True
        while more or self.waiting:
            while more and len(self.waiting) < at_once:
                port = next(self.ports, None)
                more = port is not None
                if port is not None:
                    self.begin(port)
            for key, _events in self.selector.select(0.05):
                one = key.fileobj
                assert isinstance(one, socket.socket)
                port, _deadline = self.end(one)
                if one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                    self.answered(one, port)
                else:
                    one.close()
            now = time.monotonic()
            # In the order in which they began: the first that has time left ends the search.
            late = []
            for one, (_port, deadline) in self.waiting.items():
                if deadline > now:
                    break
                late.append(one)
            for one in late:
                self.end(one)
                one.close()
        self.selector.close()


def _descriptors() -> int:
    """How many sockets may be open at once; a shell's limit is often far below what the system would grant."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = AT_ONCE + SPARE
    if soft != resource.RLIM_INFINITY and soft < wanted:
        granted = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (granted, hard))
            soft = granted
        except (ValueError, OSError):
            pass
    return AT_ONCE if soft == resource.RLIM_INFINITY else max(50, min(AT_ONCE, soft - SPARE))


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def tcp(address: str, ports: Iterable[int] = ALL_TCP, patience: float = PATIENCE) -> Answers:
    """The TCP ports that take a connection."""
    scan = _Scan(address, iter(ports), patience, _family(address))
    scan.run(_descriptors())
    return Answers(address, frozenset(("tcp", port) for port in scan.found), scan.own)


def udp(address: str, questions: dict[int, bytes] | None = None, patience: float = PATIENCE) -> Answers:
    """The UDP ports that answer. Silence says nothing: a closed port behind a firewall and a shy service are alike."""
    found: set[int] = set()
    own = ""
    with selectors.DefaultSelector() as selector:
        for port, question in (UDP_QUESTIONS if questions is None else questions).items():
            one = socket.socket(_family(address), socket.SOCK_DGRAM)
            one.setblocking(False)
            try:
                one.connect((address, port))
                own = str(one.getsockname()[0])
                one.send(question)
            except OSError:
                one.close()
                continue
            selector.register(one, selectors.EVENT_READ, port)
        deadline = time.monotonic() + patience
        while selector.get_map() and (left := deadline - time.monotonic()) > 0:
            for key, _events in selector.select(left):
                one = key.fileobj  # type: ignore[assignment]
                try:
                    one.recv(65536)
                    found.add(key.data)
                except OSError:
                    pass  # unreachable: closed
                selector.unregister(one)
                one.close()
        for key in list(selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
    return Answers(address, frozenset(("udp", port) for port in found), own)
