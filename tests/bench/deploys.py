"""Deploys and ways back of each kind of app behind each proxy: without a lost request, and how long they take."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench import kinds, load
from tests.bench.commands import BenchError, say
from tests.bench.ground import DROPLET, Ground
from tests.bench.report import Row, slower
from tests.lab.engine import docker, stage

DEPLOYS = 3
LEAST_REQUESTS = 20_000
MOST_ROUNDS = 4
REDEPLOY_LIMIT, ROLLBACK_LIMIT = 10.0, 15.0
REPEATS = 2


def measure(ground: Ground, proxy: str) -> Iterator[Row]:
    ground.stand_behind(proxy)
    yield from without_a_lost_request(ground)
    for kind in kinds.KINDS:
        yield from durations(ground, kind)


def without_a_lost_request(ground: Ground) -> Iterator[Row]:
    """On a machine that is too busy for enough requests in one round, further ones follow."""
    seen = {kind: load.Result() for kind in kinds.KINDS}
    rounds = 0
    while rounds < MOST_ROUNDS and min(result.requests for result in seen.values()) < LEAST_REQUESTS:
        rounds += 1
        for kind, result in one_round(ground).items():
            seen[kind] += result
    for kind, result in seen.items():
        yield verdict(kind, ground.proxy, result, rounds)


def one_round(ground: Ground) -> dict[str, load.Result]:
    """Three deploys and a rollback, each seen to have taken place, while every app is asked all the time."""
    urls = {kind: f"https://{kinds.domain_of(kind)}/" for kind in kinds.KINDS}
    with stage(f"{DEPLOYS} deploys and a rollback under load, behind {ground.proxy}"), load.under_load(urls) as asked:
        time.sleep(2)
        for _ in range(DEPLOYS):
            before = ground.version
            ground.publish()
            ground.play("playbooks/deploy.yml")
            for kind in kinds.KINDS:
                ground.expect(kind, ground.version)
        for kind in kinds.KINDS:
            ground.play("playbooks/rollback.yml", "-e", f"app={kinds.name_of(kind)}")
            ground.expect(kind, before)
        time.sleep(2)
    ground.version = before
    return asked.results


def verdict(kind: str, proxy: str, seen: load.Result, rounds: int = 1) -> Row:
    for fault in seen.faults:
        say(f"{kind} behind {proxy}: {fault}")
    return Row(
        f"{DEPLOYS * rounds} deploys, {rounds} rollback{'s' if rounds > 1 else ''}: {kind}, {proxy}",
        f"{seen.requests} requests",
        "",
        f"{seen.failed} failed",
        f"0 of {LEAST_REQUESTS} or more",
        seen.failed == 0 and seen.requests >= LEAST_REQUESTS,
    )


def durations(ground: Ground, kind: str) -> Iterator[Row]:
    """Each in turns with a ping, so that both meet the machine in the same mood."""
    app = kinds.name_of(kind)
    redeploys: list[float] = []
    rollbacks: list[float] = []
    pings: list[float] = []
    earlier: tuple[str, ...] = ()
    with stage(f"redeploys and rollbacks of {app} behind {ground.proxy}"):
        ground.publish()
        ground.play("playbooks/deploy.yml", "-e", f"app={app}")
        here = live_release(app)
        for _ in range(REPEATS):
            pings.append(ground.ping())
            seconds, output = ground.play("playbooks/deploy.yml", "-e", f"app={app}")
            if not re.search(r"^bench +: .*\bchanged=0\b", output, re.MULTILINE):
                raise BenchError(f"the redeploy of {app} changed something:\n{output[-3000:]}")
            redeploys.append(seconds)
            pings.append(ground.ping())
            there, output = ground.play("playbooks/rollback.yml", "-e", f"app={app}", *earlier)
            if live_release(app) == here:
                raise BenchError(f"the rollback of {app} went nowhere:\n{output[-3000:]}")
            # A release that was left by a rollback is gone back to by its name only.
            earlier = ("-e", f"to={live_release(app)}")
            back, output = ground.play("playbooks/rollback.yml", "-e", f"app={app}", "-e", f"to={here}")
            if live_release(app) != here:
                raise BenchError(f"the way back of {app} did not lead to {here}:\n{output[-3000:]}")
            rollbacks += [there, back]
        ground.expect(kind, ground.version)
        # The other kinds have stayed where they were; from here on all show the same again.
        ground.play("playbooks/deploy.yml")
    place = f"{kind}, {ground.proxy}"
    yield slower(f"redeploy, unchanged: {place}", redeploys, "ansible -m ping", pings, REDEPLOY_LIMIT)
    yield slower(f"rollback: {place}", rollbacks, "ansible -m ping", pings, ROLLBACK_LIMIT)


def live_release(app: str) -> str:
    return Path(docker("exec", DROPLET, "readlink", f"/srv/{app}/current")).name
