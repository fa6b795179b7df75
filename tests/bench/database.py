"""Transactions a second with our settings of PostgreSQL, against those of the distribution; and 500 clients at once.

The two clusters are on the same droplet with the same data, and run one at a time, in turns. Mixed is half of the
transactions writing as TPC-B has it, half of them reading one row.

It is measured twice. On a disk as clouds rent it out the disk runs out first, and what settings save of it they win. A
machine with a disk of its own, to which a commit is a tenth of a millisecond, runs out of processor; there settings can
win little, and must not lose.

It is the speed that lasts: after some time of the same load, so that what checkpoints cost is in it. Right after a
checkpoint the two are alike, since both then write each page they touch whole into the log.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tests.bench import server
from tests.bench.commands import BenchError, say
from tests.bench.report import Row, faster
from tests.bench.server import DATABASE, Server
from tests.lab.droplet import Disk
from tests.lab.engine import stage

DROPLET, ADDRESS = "shipshape-bench-database", "10.77.0.115"
SCALE, CLIENTS, TURNS = 50, 8, 2
WARM_UP, SECONDS = 30, 60
#: What the volumes of large clouds give to everybody (Amazon's gp3), and what ours must win there; or, on the machine's
#: own disk, what they may lose: what the difference between two runs of the same settings can be.
RENTED, LIMIT = Disk(operations=3000, megabytes=125), 1.3
NOT_SLOWER = 0.9
MIXED = "--builtin tpcb-like --builtin select-only"
#: The role's cluster, and one as the package makes it: name and port.
OURS, THEIRS = ("main", 5432), ("stock", 5499)
#: How many come by way of PgBouncer, and how many connections to PostgreSQL they share.
MANY, POOL, POOLER_PORT = 500, 20, 6432


def measure() -> Iterator[Row]:
    command = ("playbooks/database.yml",)
    with server.brought_up(DROPLET, ADDRESS, command, {"pool": POOL}, RENTED) as here:
        yield settings(here, f"a disk of {RENTED.operations} operations and {RENTED.megabytes} MB a second", LIMIT)
    with server.brought_up(DROPLET, ADDRESS, command, {"pool": POOL}) as here:
        yield settings(here, "this machine's disk", NOT_SLOWER)
        yield many_clients(here)


def settings(here: Server, disk: str, limit: float) -> Row:
    version = here.root("ls /etc/postgresql").strip()
    here.root(f"pg_createcluster {version} {THEIRS[0]} --port {THEIRS[1]}")
    for cluster, port in (OURS, THEIRS):
        with stage(f"pgbench: scale {SCALE}, cluster {cluster}"):
            only(here, version, cluster)
            here.postgres(f"createdb -p {port} pgbench")
            here.postgres(f"pgbench -p {port} --initialize --quiet --scale {SCALE} pgbench 2>&1")
    speeds: dict[str, list[float]] = {OURS[0]: [], THEIRS[0]: []}
    for turn in range(1, TURNS + 1):
        for cluster, port in (OURS, THEIRS):
            only(here, version, cluster)
            speeds[cluster].append(transactions(here, port))
            say(f"pgbench: turn {turn} of {TURNS}, cluster {cluster}: {speeds[cluster][-1]:.0f} transactions/s")
    only(here, version, OURS[0])
    what = f"pgbench, scale {SCALE}, {CLIENTS} clients, mixed, on {disk}"
    return faster(what, speeds[OURS[0]], "distribution's settings", speeds[THEIRS[0]], limit)


def transactions(here: Server, port: int) -> float:
    """A second, under a load that has lasted for a while."""
    base = f"pgbench -p {port} --no-vacuum --client {CLIENTS} --jobs 2 {MIXED}"
    here.postgres(f"psql -p {port} -c 'SELECT count(*) FROM pgbench_accounts' pgbench")
    here.postgres(f"{base} --time {WARM_UP} pgbench 2>&1")
    return parsed(here.postgres(f"{base} --time {SECONDS} pgbench 2>&1"))


def parsed(said: str) -> float:
    """The transactions a second that pgbench reports. One that failed makes the figure worthless."""
    found = re.search(r"^tps = ([0-9.]+) \(without initial connection time\)", said, re.MULTILINE)
    if not found or failures(said):
        raise BenchError(f"pgbench gave no result:\n{said[-2000:]}")
    return float(found[1])


def failures(said: str) -> int:
    """Clients that were refused or cut off, and transactions that failed."""
    failed = re.search(r"^number of failed transactions: (\d+)", said, re.MULTILINE)
    errors = re.findall(r"^pgbench: (?:error|fatal): (?:connection to server|client \d+)", said, re.MULTILINE)
    return len(errors) + (int(failed[1]) if failed else 0)


def only(here: Server, version: str, cluster: str) -> None:
    """The other cluster is stopped, so that this one has the machine's memory and disk for itself."""
    other = next(name for name, _ in (OURS, THEIRS) if name != cluster)
    here.root(f"systemctl stop postgresql@{version}-{other}; systemctl start postgresql@{version}-{cluster}")


def many_clients(here: Server) -> Row:
    """All are connected before the first of them asks: that is how pgbench begins."""
    password = here.root(f"cat /etc/shipshape/postgresql/{DATABASE}.password")
    with stage(f"pgbench: {MANY} clients by way of PgBouncer"):
        where = f"-h 127.0.0.1 -U {DATABASE}"
        as_app = "read -r PGPASSWORD; export PGPASSWORD; pgbench"
        here.postgres(f"{as_app} {where} --initialize --quiet --scale 10 {DATABASE} 2>&1", f"{password}\n")
        where = f"{where} -p {POOLER_PORT}"
        # Those who are refused are counted, and are no reason to stop.
        ask = f"--no-vacuum --client {MANY} --jobs 2 {MIXED} --time 15 {DATABASE} 2>&1 || true"
        said = here.postgres(f"{as_app} {where} {ask}", f"{password}\n")
    return verdict(said)


def verdict(said: str) -> Row:
    done = re.search(r"^number of transactions actually processed: (\d+)", said, re.MULTILINE)
    refused = failures(said)
    if not done and not refused:
        raise BenchError(f"pgbench gave no result:\n{said[-2000:]}")
    if refused:
        say("\n".join(line for line in said.splitlines() if line.startswith("pgbench: "))[:2000])
    return Row(
        f"{MANY} clients at once by way of PgBouncer, {POOL} connections",
        f"{done[1] if done else 0} transactions",
        "",
        f"{refused} refused",
        "0",
        refused == 0,
    )
