"""A droplet is lost, and a bare one takes its place by one command: with its data, files, certificate and passwords.

The tests build on each other, in this order.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.lab import settings
from tests.lab.engine import docker
from tests.site import malar_market, system
from tests.site.system import PROJECT, Run, System

pytestmark = pytest.mark.skipif(not settings.EVERYTHING, reason="four droplets, one after another: make test-all")

HOSTS = {"malar1": "10.77.0.97"}
CONTAINER = "shipshape-rebuild-malar1"
#: Of its own, so that it runs beside the other tests of this inventory.
DOMAINS = malar_market.domains("rebuild.test")
API = f"https://{DOMAINS[0]}"
UPLOADS = "/var/lib/shipshape/malar-api/uploads"
#: What is promised of a droplet with two cores.
PROMISED_SECONDS = 15 * 60
#: What the first droplet had when it was lost, and where its backups went.
KEPT: dict[str, Any] = {}
#: Rows of a table that does not compress well: with its index some 500 MB, as much as an app has after its first years.
ROWS = 4_000_000
FIRST: dict[str, str] = {}


@pytest.fixture(scope="module")
def lost(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("rebuild")
    inventory = malar_market.at("rebuild.test", folder)
    main = inventory / "group_vars" / "all" / "main.yml"
    written = yaml.safe_load(main.read_text(encoding="utf-8"))
    written["backup"] |= {"recovery_days": 7, "drill": "never"}
    written["apps"]["malar-api"]["shared"] = "uploads"
    main.write_text(yaml.safe_dump(written), encoding="utf-8")
    yield System(inventory, HOSTS, folder, system.bucket("shipshape-rebuild"), DOMAINS)
    system.stop("rebuild", HOSTS)


def lose(lost: System) -> None:
    """The droplet is gone, and there is a bare one at its address, whose users have other numbers."""
    system.start("rebuild", HOSTS, DOMAINS)
    docker("exec", CONTAINER, "sh", "-euc", "for n in 1 2 3 4 5; do useradd --system other$n; done")


def sql(lost: System, statement: str) -> str:
    return lost.ssh(f'cd /; runuser -u postgres -- psql -XAt malar_api -c "{statement}"')


def add_farmer(lost: System, name: str) -> None:
    body = json.dumps({"name": name, "phone": f"+91{time.time_ns() % 10**10:010d}", "village": "Madurai"}).encode()
    answer = lost.fetch(f"{API}/api/v1/farmers", lost.token(), body)
    assert answer.status == 201, answer.body


def fill(lost: System) -> None:
    """Bring the database to the size of one that has been at work."""
    sql(lost, "SET ROLE malar_api; CREATE TABLE entries (id bigint PRIMARY KEY, text text NOT NULL)")
    for begin in range(1, ROWS, ROWS // 4):  # each within the time that a script has
        numbers = f"generate_series({begin}, {begin + ROWS // 4 - 1}) AS n"
        sql(lost, f"INSERT INTO entries SELECT n, md5(n::text) || md5((-n)::text) FROM {numbers}")
    print(sql(lost, "SELECT 'the database has ' || pg_size_pretty(pg_database_size('malar_api'))"))


def archive(lost: System) -> None:
    """What was committed so far is in the store, as it is after a minute by itself."""
    lost.ssh(
        """cd /; ask() { runuser -u postgres -- psql -XAtc "$1"; }
segment=$(ask "SELECT pg_walfile_name(pg_switch_wal())")
for second in $(seq 60); do
  last=$(ask "SELECT last_archived_wal FROM pg_stat_archiver")
  [[ $last < $segment ]] || exit 0; sleep 1
done; exit 1"""
    )


def serial_served() -> str:
    words = (PROJECT / "molecule/certbot/served.py", HOSTS["malar1"], settings.CA_CERTIFICATE, DOMAINS[0])
    shown = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, check=True).stdout
    found: str = json.loads(shown)[DOMAINS[0]]
    return found


def what_it_has(lost: System) -> dict[str, Any]:
    """Of what nobody could make again."""
    secrets = "cat /etc/shipshape/postgresql/*.password /etc/shipshape/redis/*.password | sha256sum"
    accounts = "find /etc/letsencrypt/accounts -name private_key.json -exec sha256sum {} +"
    return {
        "farmers": sql(lost, "SELECT id, name, phone FROM farmers ORDER BY id"),
        "entries": sql(lost, "SELECT count(*), sum(hashtext(text)) FROM entries"),
        "uploads": lost.ssh(f"cd {UPLOADS}; sha256sum photo; stat -c '%a %U %G' . photo"),
        "secrets": lost.ssh(secrets),
        "account": lost.ssh(accounts),
        "certificate": serial_served(),
        "seeds": lost.ssh("ls /etc/shipshape/seeded 2>/dev/null || true"),
    }


def repository(lost: System) -> str:
    """The identity that restic gave it when it was made."""
    found: str = json.loads(lost.ssh("cat /var/lib/shipshape/backup/last.json"))["repository_id"]
    return found


def rebuilt(lost: System, *arguments: str) -> Run:
    began = time.monotonic()
    run = lost.play("site.yml", *arguments)
    seconds = time.monotonic() - began
    assert run.code == 0, run.tail
    report = run.output[run.output.index("PLAY RECAP") :]
    print("\n".join(line for line in report.splitlines() if re.search(r"re(stored|built) ", line)))
    print(f"rebuilt, by the clock on the wall, in {seconds:.0f} s; promised are {PROMISED_SECONDS} s")
    assert seconds < PROMISED_SECONDS
    for secret in [*lost.secrets.values(), lost.s3["secret_key"]]:
        assert secret not in run.output
    return run


def test_a_droplet_with_data_is_refused_before_anything_changes(lost: System) -> None:
    system.start("rebuild", HOSTS, DOMAINS)
    run = lost.play("site.yml")
    assert run.code == 0, run.tail
    add_farmer(lost, "Before the backup மலர்")
    fill(lost)
    lost.ssh(
        f"head -c 3000000 /dev/urandom >{UPLOADS}/photo; chown malar-api: {UPLOADS}/photo; chmod 640 {UPLOADS}/photo"
    )
    refused = lost.play("site.yml", "-e", "restore_from=latest")
    assert refused.code != 0 and refused.count("changed") == 0, refused.tail
    for words in (
        "database malar_api has",
        f"{UPLOADS.removesuffix('/uploads')} has 1 files",
        "Nothing was changed",
        "--limit",
    ):
        assert words in refused.output, refused.tail
    assert lost.play("site.yml").count("changed") == 0


def test_what_was_never_backed_up_is_said_to_and_no_repository_is_made(lost: System) -> None:
    """Under another name, on a droplet that is bare."""
    backup = lost.play("playbooks/backup.yml")
    assert backup.code == 0, backup.tail
    FIRST["repository"] = repository(lost)
    print("\n".join(re.findall(r"(?:full|diff) backup .*", backup.output)))
    # Committed after the backup: the log alone has it.
    add_farmer(lost, "After the backup")
    archive(lost)
    KEPT.update(what_it_has(lost))
    lose(lost)
    run = lost.play("site.yml", "-e", "restore_from=latest", "-e", "backup_prefix=nobody")
    assert run.code != 0 and "nothing was ever backed up to" in run.output, run.tail
    assert "goes on from here" in run.output
    listing = docker("exec", settings.SERVICES, "ls", f"/srv/s3/{lost.s3['bucket']}").split()
    assert "nobody" not in listing and "malar1" in listing


def test_a_check_of_a_rebuild_changes_nothing_and_says_what_comes_back(lost: System) -> None:
    lose(lost)
    before = system.changes(CONTAINER)
    run = lost.play("site.yml", "--check", "-e", "restore_from=latest")
    assert run.code == 0, run.tail
    assert "Back come files and databases, by the log" in run.output
    assert system.changes(CONTAINER) == before


def test_a_rebuild_that_is_killed_goes_on_to_all_that_the_lost_one_had(lost: System) -> None:
    lost.play_and_kill("site.yml", "Put the databases back", "-e", "restore_from=latest")
    time.sleep(1)
    # Not only the controller: what it has started on the droplet, too.
    killed = "pgrep -f '[s]hipshape_pgbackrest rebuild' | xargs --no-run-if-empty kill -KILL"
    docker("exec", CONTAINER, "sh", "-c", killed)
    mark = json.loads(lost.ssh("cat /var/lib/shipshape/rebuild.json"))
    assert (mark["from"], mark["finished"]) == ("latest", None)
    # Nothing that is half restored gets into the store.
    assert "getting back what it had" in lost.ssh("shipshape-backup run 2>&1 || test $? = 75")
    other = lost.play("site.yml", "-e", "restore_from=2026-01-01")
    assert other.code != 0 and "in the middle of being rebuilt from latest" in other.output, other.tail

    run = rebuilt(lost, "-e", "restore_from=latest")
    assert what_it_has(lost) == KEPT
    assert "After the backup" in KEPT["farmers"]
    report = run.output[run.output.index("PLAY RECAP") :]
    assert re.search(r"restored +files as they were at .*: \d+ put back", report), report
    assert re.search(r"restored +database server with all that was committed up to .*, from backup", report), report
    assert re.search(r"rebuilt +from latest, in \d+ s, since", report), report

    assert lost.fetch(f"{API}/health").json()["status"] == "healthy"
    add_farmer(lost, "On the new droplet")
    owner = lost.ssh(f"stat -c %U {UPLOADS} {UPLOADS}/photo | sort -u")
    assert owner == "malar-api"
    again = lost.play("site.yml")
    assert (again.code, again.count("changed")) == (0, 0), again.tail
    verified = lost.play("playbooks/verify.yml")
    assert verified.code == 0, verified.tail


def test_backups_go_on_beside_those_of_the_lost_one(lost: System) -> None:
    lost.ssh("for n in $(seq 120); do test -e /var/lib/shipshape/pgbackrest/last-success && break; sleep 1; done")
    backup = lost.play("playbooks/backup.yml")
    assert backup.code == 0, backup.tail
    servers = json.loads(lost.ssh("shipshape-pgbackrest list --json"))["backups"]
    # The first one's, its nightly one's; the one made at once, and that of just now.
    assert [row["type"] for row in servers] == ["full", "diff", "full", "diff"]
    # Of a day the last one stays, in the same repository.
    assert repository(lost) == FIRST["repository"]
    taken = json.loads(lost.ssh("shipshape-backup list --json"))
    assert sorted(row["what"] for row in taken) == ["database:malar_api", "files"]
    histories = lost.ssh("runuser -u postgres -- pgbackrest repo-ls archive/main/15-1 --stanza=main")
    assert "00000002.history" in histories
    # Nothing is left of how it came about.
    assert lost.ssh("ls /var/lib/postgresql/15") == "main"
    assert lost.ssh("ls /var/lib/shipshape/backup | grep -x rebuild || true") == ""


def test_a_second_loss_goes_back_to_a_moment_before_a_mistake(lost: System) -> None:
    kept = what_it_has(lost)
    time.sleep(2)
    moment = lost.ssh("date -u +'%Y-%m-%d %H:%M:%S'")
    time.sleep(2)
    sql(lost, "DELETE FROM farmers")
    archive(lost)
    lose(lost)
    rebuilt(lost, "-e", f"restore_from={moment}")
    assert what_it_has(lost) == kept
    assert "On the new droplet" in kept["farmers"]
    assert sql(lost, "SELECT timeline_id FROM pg_control_checkpoint()") == "3"
    again = lost.play("site.yml")
    assert (again.code, again.count("changed")) == (0, 0), again.tail


def test_a_third_loss_is_made_good_by_the_nightly_dumps_in_the_same_repository(lost: System) -> None:
    lost.ssh("for n in $(seq 120); do test -e /var/lib/shipshape/pgbackrest/last-success && break; sleep 1; done")
    assert lost.play("playbooks/backup.yml").code == 0
    kept = what_it_has(lost)
    add_farmer(lost, "Since the last night")
    archive(lost)
    lose(lost)
    run = rebuilt(lost, "-e", "restore_from=latest", "-e", "restore_dumps=true")
    assert re.search(r"restored +database malar_api as it was at .*: \d+ tables", run.output), run.tail
    assert what_it_has(lost) == kept
    again = lost.play("site.yml")
    assert (again.code, again.count("changed")) == (0, 0), again.tail
    lost.ssh("for n in $(seq 120); do test -e /var/lib/shipshape/pgbackrest/last-success && break; sleep 1; done")
    # The cluster that was made for the dumps is another one, and the backups of those before are kept.
    servers = json.loads(lost.ssh("shipshape-pgbackrest list --json"))["backups"]
    assert len(servers) == 7 and servers[-1]["type"] == "full"
    archives = lost.ssh("runuser -u postgres -- pgbackrest repo-ls archive/main --stanza=main").split()
    assert {"15-1", "15-2"} <= set(archives)
