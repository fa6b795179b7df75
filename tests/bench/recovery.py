"""What a loss costs: commits, time, and whether what comes back is what was there; and what backups take.

All of it against the S3 store of the lab, on a droplet whose inventory says `backup: {recovery_days: 7}`. Every figure
is of the commands that an operator or cron would run.
"""

from __future__ import annotations

import json
import random
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from tests.bench import server
from tests.bench.commands import BenchError, say
from tests.bench.report import Row, slower
from tests.bench.server import DATABASE, HOST, Server
from tests.lab import settings
from tests.lab.engine import LabError, docker, stage
from tests.site import system

DROPLET, ADDRESS = "shipshape-bench-recovery", "10.77.0.116"
GIGABYTE = 1 << 30
STATE = "/var/lib/shipshape/pgbackrest"

#: At most so many seconds of commits are lost with the server and its disk.
LOSS_LIMIT = 60.0
RESTORE_LIMIT, RESTORES = 3.0, 2
UNCHANGED_LIMIT, UNCHANGED_RUNS = 5.0, 3
DUMP_LIMIT = 1.0
#: A hundred take a quarter of an hour: `make bench DRILLS=100`.
DRILLS = 10


def measure(drills: int) -> Iterator[Row]:
    store = system.bucket("shipshape-bench")
    backup = {"s3": store, "password": secrets.token_hex(20), "recovery_days": 7}
    command = ("site.yml", "--tags", "packages,postgresql,backup")
    database = {"extensions": ["pgcrypto"]}
    try:
        with server.brought_up(DROPLET, ADDRESS, command, database, backup=backup) as here:
            wait_for_the_first_backup(here)
            yield exact_drills(here, drills)
            yield unchanged_files(here)
            fill(here)
            yield second_dump(here, store["bucket"])
            yield time_to_restore(here)
            yield commits_lost(here)
    finally:
        docker("exec", settings.SERVICES, "rm", "-rf", f"/srv/s3/{store['bucket']}", check=False)


def wait_for_the_first_backup(here: Server) -> None:
    """It began by itself."""
    here.root(f"for attempt in $(seq 600); do test -s {STATE}/last.json && break; sleep 0.2; done")
    report = here.json(f"cat {STATE}/last.json")
    if report["status"] != "ok":
        raise BenchError(f"the first backup failed: {report['failures']}")
    # A moment before the end of the first backup cannot be restored, and its time is known in whole seconds.
    time.sleep(2)


# ---- drills


@dataclass(frozen=True)
class Commit:
    """Between when it took place, in microseconds since 1970, and what there was afterwards."""

    begun: int
    done: int
    content: str


NOW = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
#: All rows with all columns, as one word.
CONTENT = "SELECT count(*) || ':' || md5(coalesce(string_agg(l::text, '|' ORDER BY id), '')) FROM ledger AS l"
TABLE = """
CREATE TABLE ledger (id bigserial PRIMARY KEY, amount bigint NOT NULL, note text NOT NULL, at timestamptz DEFAULT now()
);
CREATE INDEX ON ledger (note);
"""


def transaction(chance: random.Random) -> str:
    """A random one, which may be rolled back."""
    parts = [
        f"INSERT INTO ledger (amount, note) SELECT random() * 1e9, md5(random()::text) "
        f"FROM generate_series(1, {chance.randint(1, 200)});",
        f"UPDATE ledger SET amount = amount + {chance.randint(1, 999)} WHERE id % {chance.randint(2, 40)} = 0;",
        f"DELETE FROM ledger WHERE id % {chance.randint(5, 60)} = {chance.randint(0, 4)};",
    ]
    chosen = chance.sample(parts, chance.randint(1, 3))
    return f"BEGIN; {' '.join(chosen)} {'ROLLBACK' if chance.random() < 0.15 else 'COMMIT'};"


def history(chance: random.Random, transactions: int) -> str:
    """SQL that does so many, one after the other, and says of each when it was and what it left."""
    return "\n".join(
        f"SELECT 'begun ' || {NOW};\n{transaction(chance)}\n"
        f"SELECT 'done ' || {NOW} || ' ' || ({CONTENT});\nSELECT pg_sleep({chance.uniform(0, 0.1):.3f});"
        for _ in range(transactions)
    )


def commits_of(said: str) -> list[Commit]:
    found = re.findall(r"^begun (\d+)\ndone (\d+) (\S+)$", re.sub(r"\n\n+", "\n", said), re.MULTILINE)
    if len(found) != len(re.findall(r"^begun ", said, re.MULTILINE)) or not found:
        raise BenchError(f"the history of the drills cannot be read:\n{said[-2000:]}")
    return [Commit(int(begun), int(done), content) for begun, done, content in found]


def content_at(commits: Sequence[Commit], moment: int) -> str | None:
    """What there was then; None while something was just being committed, or before the first."""
    content = None
    for commit in commits:
        if commit.begun > moment:
            break
        content = commit.content if commit.done <= moment else None
    return content


def some_moment(commits: Sequence[Commit], chance: random.Random) -> int:
    """Any at which it is certain what had been committed."""
    while True:
        moment = chance.randint(commits[0].done, commits[-1].done + 100_000)
        if content_at(commits, moment) is not None:
            return moment


def as_time(moment: int) -> str:
    seconds, micro = divmod(moment, 1_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}.{micro:06} UTC"


def exact_drills(here: Server, drills: int) -> Row:
    """Each goes on with the history and restores any moment of all of it, of before and after a second backup."""
    seed = secrets.randbits(32)
    chance = random.Random(seed)
    here.sql(TABLE)
    commits: list[Commit] = []
    exact = 0
    with stage(f"{drills} drills, seed {seed}"):
        for number in range(drills):
            commits += commits_of(here.sql(history(chance, 12)))
            if number == drills // 2:
                here.root("shipshape-pgbackrest run")
            # What is in the future cannot be restored; the present is known in whole seconds.
            time.sleep(1.2)
            exact += drill(here, commits, some_moment(commits, chance))
    return Row(
        f"drills: {len(commits)} random transactions, random moments",
        f"{exact} of {drills} exact",
        "",
        f"{drills - exact} wrong",
        "0",
        exact == drills,
    )


def drill(here: Server, commits: Sequence[Commit], moment: int) -> bool:
    wanted = content_at(commits, moment)
    try:
        restored = here.json(f"shipshape-pgbackrest restore --to '{as_time(moment)}' --name bench --json")
    except LabError as error:
        say(f"drill: {as_time(moment)} could not be restored: {error}")
        return False
    found = here.sql(CONTENT, port=restored["port"])
    here.root("shipshape-pgbackrest drop bench")
    if found != wanted:
        say(f"drill: at {as_time(moment)} there was {wanted}, and restored was {found}")
    return found == wanted


# ---- files and dumps


def backs_up(here: Server, name: str, databases: Sequence[str], paths: Sequence[str]) -> str:
    """The command that backs up those alone, into the repository and with all else that the role has set up."""
    folder = f"/var/tmp/{name}"
    here.root(f"rm -rf {folder}; cp -a /etc/shipshape/backup {folder}")
    configuration = here.json(f"cat {folder}/config.json") | {"databases": databases, "paths": paths}
    here.root(f"cat >{folder}/config.json", json.dumps(configuration))
    return f"shipshape-backup --configuration {folder} run"


def unchanged_files(here: Server) -> Row:
    with stage("backups of 1 GB of files"):
        here.root(f"mkdir /srv/tree; head -c {GIGABYTE} /dev/urandom | split -b 512K -a 4 - /srv/tree/file-")
        command = backs_up(here, "files", [], ["/srv/tree"])
        first = timed(here, command)
        again = sorted(timed(here, command) for _ in range(UNCHANGED_RUNS))
        here.root("rm -r /srv/tree")
    middle = again[len(again) // 2]
    return Row(
        "backup of 1 GB of unchanged files",
        f"{middle:.2f} s",
        f"the first {first:.2f} s",
        f"{middle:.2f} s",
        f"at most {UNCHANGED_LIMIT:g} s",
        middle <= UNCHANGED_LIMIT,
    )


def timed(here: Server, command: str) -> float:
    begin = time.monotonic()
    here.root(command)
    return time.monotonic() - begin


CHANCE = "encode(gen_random_bytes(500), 'hex')"


def fill(here: Server) -> None:
    """A database of 1 GB that is chance, so that no compression makes it small."""
    with stage("a database of 1 GB"):
        here.sql("CREATE TABLE ballast (id bigserial PRIMARY KEY, body text NOT NULL)")
        while int(here.sql("SELECT pg_database_size(current_database())")) < GIGABYTE:
            here.sql(f"INSERT INTO ballast (body) SELECT {CHANCE} FROM generate_series(1, 100000)")


def second_dump(here: Server, bucket: str) -> Row:
    """After an update of neighbouring rows: a dump misses them where they were and has the new ones at its end."""
    command = backs_up(here, "dump", [DATABASE], [])
    with stage("two dumps of 1 GB"):
        here.root(command)
        before = stored(bucket)
        changed = int(
            here.sql(
                f"WITH changed AS (UPDATE ballast SET body = {CHANCE} WHERE id BETWEEN 300001 AND 320000 RETURNING *) "
                "SELECT sum(length(changed::text)) FROM changed"
            )
        )
        here.root(command)
        added = stored(bucket) - before
    return Row(
        "second dump of a 1 GB database",
        f"{added / 1e6:.1f} MB added",
        f"{changed / 1e6:.1f} MB changed",
        f"{added / changed:.2f} x",
        f"at most {DUMP_LIMIT:g} x",
        added <= changed * DUMP_LIMIT,
    )


def stored(bucket: str) -> int:
    """The bytes of the host's restic repository, as they lie in the store."""
    return int(docker("exec", settings.SERVICES, "du", "--summarize", "--bytes", f"/srv/s3/{bucket}/{HOST}").split()[0])


# ---- loss


def time_to_restore(here: Server) -> Row:
    """The playbook, from its start to a server that answers; against pgBackRest's own part of it, in turns."""
    version = here.root("ls /etc/postgresql").strip()
    data = f"/var/lib/postgresql/{version}/alone"
    bare = f"pgbackrest --stanza=main --pg1-path={data} --log-level-console=warn --log-level-stderr=off restore"
    rows = here.sql("SELECT count(*) FROM ballast")
    alone: list[float] = []
    ours: list[float] = []
    with stage("full backup of 1 GB"):
        here.root("shipshape-pgbackrest run full")
    for _ in range(RESTORES):
        with stage("restore of 1 GB: by pgBackRest alone, and by the playbook"):
            here.postgres(f"mkdir --mode 0700 {data}")
            alone.append(timed(here, f"cd /; runuser -u postgres -- {bare}"))
            here.root(f"rm -r {data}")
            seconds, output = here.play("playbooks/restore.yml", "-e", "to=latest")
            ours.append(seconds)
            found = re.search(r"psql -p (\d+) DATABASE", output)
            if not found or here.sql("SELECT count(*) FROM ballast", port=int(found[1])) != rows:
                raise BenchError(f"what was restored does not answer as it should:\n{output[-3000:]}")
            here.root("shipshape-pgbackrest drop")
    return slower("1 GB database from S3 to answering queries", ours, "pgbackrest restore", alone, RESTORE_LIMIT)


AT = NOW.replace("clock_timestamp()", "at")
WRITES = "CREATE TABLE writes (id bigserial PRIMARY KEY, at timestamptz NOT NULL)"
ACKNOWLEDGED = "/var/tmp/acknowledged"
#: psql prints a row once its transaction is committed. Should this program die, the load does not go on for ever.
LOAD = f"""
statement="INSERT INTO writes (at) VALUES (clock_timestamp()) RETURNING id, {AT};"
systemd-run --quiet --collect --unit=bench-load -p RuntimeMaxSec=600 -p StandardOutput=file:{ACKNOWLEDGED} \\
  sh -c "while sleep 0.02; do echo '$statement'; done | runuser -u postgres -- psql -XqAt -d {DATABASE} -f -"
"""
#: A switch of the log is the worst moment: what was committed since the one before is not in the archive yet.
SWITCHED = """
DO $$ DECLARE segment text; BEGIN
  PERFORM pg_sleep(2);
  segment := pg_walfile_name(pg_current_wal_lsn());
  WHILE pg_walfile_name(pg_current_wal_lsn()) = segment LOOP PERFORM pg_sleep(0.01); END LOOP;
END $$;
"""


def commits_lost(here: Server) -> Row:
    """The server killed at the worst moment of the log, its data lost, and all got back from the archive."""
    version = here.root("ls /etc/postgresql").strip()
    here.sql(WRITES)
    with stage("a steady load, and the loss of the server and its data"):
        here.root(LOAD)
        time.sleep(1)
        here.sql("SELECT pg_switch_wal()")
        here.root(
            f"cd /; runuser -u postgres -- psql -Xq -f - {DATABASE}\n"
            f"systemctl kill --signal=KILL postgresql@{version}-main\n"
            f"sleep 0.5; rm -rf /var/lib/postgresql/{version}/main",
            SWITCHED,
        )
    if left := here.root("pgrep -x postgres || true"):
        raise BenchError(f"PostgreSQL was to be killed, and these processes live: {left.split()}")
    acknowledged = commits(here.root(f"cat {ACKNOWLEDGED}"))
    with stage("restore into the place of what was lost"):
        seconds, _ = here.play("playbooks/restore.yml", "-e", "to=latest", "-e", "promote=true")
    say(f"from a lost server to a live one and its next backup: {seconds:.0f} s")
    return loss(acknowledged, commits(here.sql(f"SELECT id, {AT} FROM writes")))


def commits(said: str) -> dict[int, int]:
    """When which was committed, in microseconds."""
    return {int(number): int(moment) for number, moment in re.findall(r"^(\d+)\|(\d+)$", said, re.MULTILINE)}


def loss(acknowledged: dict[int, int], restored: dict[int, int]) -> Row:
    """From the last commit that came back to the last one that a client had been told of."""
    if not acknowledged or not restored:
        raise BenchError(f"there is nothing to compare: {len(acknowledged)} commits, {len(restored)} restored")
    survived = max(restored)
    missing = [number for number in acknowledged if number not in restored]
    holes = [number for number in missing if number < survived]
    seconds = (max(acknowledged.values()) - restored[survived]) / 1e6 if missing else 0.0
    return Row(
        "kill -9 and loss of the data directory",
        f"{len(missing)} of {len(acknowledged)} commits",
        "",
        f"{seconds:.1f} s lost{f'; {len(holes)} lost in between' if holes else ''}",
        f"at most {LOSS_LIMIT:g} s",
        seconds <= LOSS_LIMIT and not holes,
    )
