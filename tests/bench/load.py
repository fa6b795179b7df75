"""Requests from the client, by wrk: at a steady pace while something else happens, or as many as there can be."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench import ground
from tests.bench.commands import BenchError
from tests.lab import droplet

SCRIPT = Path(__file__).parent / "files" / "load.lua"
FOLDER = "/var/tmp/load"
#: One that keeps its connections, and one that opens a new one for each request.
WAYS = ("keep-alive", "close")
#: Should this program die, the load does not go on for ever.
AT_MOST = 900


@dataclass(frozen=True)
class Result:
    """What wrk has seen. A request has failed when its connection did, or when its answer was not the right one."""

    requests: int = 0
    failed: int = 0
    seconds: float = 0.0
    faults: tuple[str, ...] = ()

    @property
    def rate(self) -> float:
        return self.requests / self.seconds

    def __add__(self, other: Result) -> Result:
        return Result(
            self.requests + other.requests, self.failed + other.failed, self.seconds + other.seconds,
            self.faults + other.faults,
        )  # fmt: skip


UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse(output: str) -> Result:
    end = re.search(r"^\s*(\d+) requests in ([\d.]+)(us|ms|s|m|h),", output, re.MULTILINE)
    if not end:
        raise BenchError(f"wrk gave no result:\n{output[-1000:]}")
    sockets = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", output)
    statuses = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    wrong = re.search(r"^Wrong answers: ([1-9]\d*)", output, re.MULTILINE)
    # An answer with another status is a wrong one, too: it counts once.
    answers = max((int(found[1]) for found in (statuses, wrong) if found), default=0)
    failed = answers + sum(int(number) for number in (sockets.groups() if sockets else ()))
    faults = tuple(found[0].strip() for found in (sockets, statuses, wrong) if found)
    return Result(int(end[1]), failed, float(end[2]) * UNITS[end[3]], faults)


@dataclass
class Load:
    """What runs, by (name, way): the process in the client; and afterwards what came of it."""

    processes: dict[tuple[str, str], int] = field(default_factory=dict)
    results: dict[str, Result] = field(default_factory=dict)

    def begin(self, url: str, name: str, way: str) -> None:
        command = (
            f"setsid wrk --threads 1 --connections 4 --duration {AT_MOST}s --timeout 10s --script {FOLDER}/load.lua "
            f"--header 'Connection: {way}' {url} >{FOLDER}/{name}.{way} 2>&1 </dev/null & echo $!"
        )
        self.processes[name, way] = int(ground.client(command))

    def end(self) -> bool:
        """Whether all of it was still going on."""
        numbers = " ".join(map(str, self.processes.values()))
        # Each stops by itself when it is asked to, and then says what it has seen.
        gone = ground.client(f"for one in {numbers}; do kill -INT $one 2>/dev/null || echo $one; done")
        ground.client(f"for one in {numbers}; do timeout 20 tail --pid=$one -f /dev/null || true; done")
        return not gone


@contextmanager
def under_load(urls: Mapping[str, str]) -> Iterator[Load]:
    """Ask for each of the URLs in both ways until the block ends; then `results` says how that went, by name."""
    load = Load()
    droplet.put(ground.CLIENT, {f"{FOLDER[1:]}/load.lua": (SCRIPT.read_bytes(), 0o644)})
    try:
        for name, url in urls.items():
            for way in WAYS:
                load.begin(url, name, way)
        yield load
    finally:
        lasted = load.end()
    if not lasted:
        raise BenchError(f"the load ended before what it was meant for: is that longer than {AT_MOST} s?")
    for name, way in load.processes:
        seen = parse(ground.client(f"cat {FOLDER}/{name}.{way}"))
        load.results[name] = load.results.get(name, Result()) + seen


def flat_out(url: str, seconds: int) -> Result:
    """As many requests as four times four kept connections can make."""
    return parse(ground.client(f"wrk --threads 2 --connections 16 --duration {seconds}s --timeout 10s {url}"))
