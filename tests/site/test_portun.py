"""System 4 from its inventory: two sites and their API, TLS 1.3 alone, SQL migrations, blue/green and its way back.

The second droplet, which has a copy of the databases and becomes the primary, is there in `make test-all` alone.

The tests build on each other, in this order.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.lab import repository, settings
from tests.site import system
from tests.site.system import PROJECT, Run, System

HOSTS = {"portun1": "10.77.0.49", **({"portun2": "10.77.0.100"} if settings.EVERYTHING else {})}
FAILOVER = pytest.mark.skipif(not settings.EVERYTHING, reason="some minutes of a failover with backups: make test-all")
#: A migration that a later deploy brings.
LOGS = "20251121080000_visitor_record_logs"
DOMAINS = ("data.portun.app", "www.portun.app", "portun.app", "admin.portun.app")
DATA, WWW, ADMIN = "https://data.portun.app", "https://www.portun.app", "https://admin.portun.app"
HSTS = "max-age=31536000; includeSubDomains; preload"
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' https://data.portun.app; img-src 'self' data: https:; "
    "style-src 'self' 'unsafe-inline'; connect-src 'self' https://data.portun.app wss://data.portun.app"
)
EXAMPLE = PROJECT / "examples" / "portun"


def inventory(folder: Path) -> Path:
    """The repository's, without the droplets that are not there."""
    source, copy = PROJECT / "inventories" / "portun", folder / "inventory"
    shutil.copytree(source, copy)
    groups = yaml.safe_load((source / "hosts.yml").read_text(encoding="utf-8"))
    for group in groups.values():
        group["hosts"] = {name: said for name, said in group["hosts"].items() if name in HOSTS}
    (copy / "hosts.yml").write_text(yaml.safe_dump(groups, sort_keys=False), encoding="utf-8")
    return copy


def publish(folder: Path, files: dict[str, str] | None = None, *, logs: bool = True) -> str:
    """The example with some files more, or without the table of logs, as a commit of its repository."""
    copy = folder / "source"
    subprocess.run(["rm", "-rf", str(copy)], check=True)
    subprocess.run(["cp", "-r", str(EXAMPLE), str(copy)], check=True)
    for path in () if logs else (copy / "supabase" / "migrations").glob(f"{LOGS}*"):
        path.unlink()
    for name, text in (files or {}).items():
        (copy / name).write_text(text, encoding="utf-8")
    return repository.publish(copy, "portun")


@pytest.fixture(scope="module")
def portun(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    system.start("portun", HOSTS, DOMAINS)
    folder = tmp_path_factory.mktemp("portun")
    publish(folder, logs=False)
    given = System(inventory(folder), HOSTS, folder, system.bucket("shipshape-portun"), DOMAINS)
    given.extra = {
        "vault_portun_admin_key": settings.SSH_KEY.with_suffix(".pub").read_text(encoding="utf-8").strip(),
        "vault_portun_s3": given.s3,
        "vault_portun_backup_password": given.secret("portun_backup"),
        # Nobody listens there: a deploy does not depend on it.
        "vault_portun_webhook": f"https://{HOSTS['portun1']}:9/T0/{given.secret('portun_webhook')}",
        "app_watch_seconds": 3,
    }
    yield given
    system.stop("portun", HOSTS)


def sql(portun: System, query: str, host: str = "portun1") -> str:
    return portun.ssh(f'cd /\nrunuser -u postgres -- psql -At portun_data -c "{query}"', host)


def deployed(portun: System, *arguments: str) -> Run:
    return portun.play("playbooks/deploy.yml", "-e", "app=portun-data", *arguments)


def restored(portun: System, *arguments: str, on: str = "portun1") -> Run:
    return portun.play("playbooks/restore.yml", "--limit", on, *arguments)


def test_it_comes_up_from_its_inventory_and_a_second_run_changes_nothing(portun: System) -> None:
    run = portun.play("site.yml")
    assert run.code == 0, run.tail
    again = portun.play("site.yml", "--diff")
    assert (again.code, again.count("changed")) == (0, 0), again.tail
    assert portun.fetch(f"{DATA}/health").json()["status"] == "healthy"
    assert "Portun web" in portun.fetch(WWW).body
    assert portun.fetch("https://portun.app/").headers["location"].startswith(WWW)


def test_the_api_comes_by_way_of_a_pool_of_500_clients(portun: System) -> None:
    environment = portun.ssh("cat /srv/portun-data/current/env")
    assert "@127.0.0.1:6432/portun_data" in environment.split("DIRECT_DATABASE_URL")[0], environment.count("URL")
    console = "cd /\nrunuser -u pgbouncer -- psql -XAt -h /var/run/postgresql -p 6432 pgbouncer"
    said = portun.ssh(f"{console} -c 'SHOW CONFIG'")
    assert "\nmax_client_conn|500|" in said and "\npool_mode|transaction|" in said, said
    assert "portun_data" in portun.ssh(f"{console} -c 'SHOW POOLS'")


@FAILOVER
def test_the_second_droplet_has_a_copy_and_a_monitor_can_read_how_far_behind_it_is(portun: System) -> None:
    assert sql(portun, "SELECT status FROM pg_stat_wal_receiver", "portun2") == "streaming"
    count = "SELECT count(*) FROM visitor_records"
    assert sql(portun, count, "portun2") == sql(portun, count)
    path = "/var/lib/shipshape/replicas.json"
    seen = portun.ssh(f"cd /\nshipshape-database replicas >/dev/null; runuser -u nobody -- cat {path}")
    assert json.loads(seen)["replicas"]["portun2"]["streams"], seen
    assert "shipshape-database replicas" in portun.ssh("cat /etc/cron.d/shipshape-postgresql")
    assert "replicas" not in portun.ssh("cat /etc/cron.d/shipshape-postgresql || true", "portun2")


def test_nothing_older_than_tls_1_3_is_spoken(portun: System) -> None:
    def status(*version: str) -> int:
        command = ["curl", "--silent", "--output", "/dev/null", "--cacert", str(settings.CA_CERTIFICATE), *version]
        resolve = ["--resolve", f"www.portun.app:443:{HOSTS['portun1']}", f"{WWW}/"]
        return subprocess.run([*command, *resolve], check=False, timeout=30).returncode

    assert status("--tlsv1.3") == 0
    assert status("--tls-max", "1.2") == 35


def test_the_plans_headers_are_sent(portun: System) -> None:
    for url in (WWW, ADMIN):
        headers = portun.fetch(url).headers
        assert headers["strict-transport-security"] == HSTS
        assert headers["content-security-policy"] == POLICY
    assert portun.fetch(f"{DATA}/health").headers["strict-transport-security"] == HSTS


def test_the_admin_app_finds_its_page_on_every_path_and_assets_are_kept_for_a_year(portun: System) -> None:
    assert "Portun admin" in portun.fetch(f"{ADMIN}/visitors/7").body
    assert portun.fetch(f"{WWW}/visitors/7").status == 404
    asset = portun.fetch(f"{ADMIN}/assets/index-5f2a91c0.js", {"Accept-Encoding": "gzip"})
    assert "max-age=31536000" in asset.headers["cache-control"] and asset.headers["content-encoding"] == "gzip"
    assert "max-age=31536000" not in portun.fetch(ADMIN).headers.get("cache-control", "")


def test_scripts_of_named_origins_alone_may_read_the_api(portun: System) -> None:
    def allowed(origin: str) -> str:
        answer = portun.fetch(f"{DATA}/rest/v1/visitor_records", {"Origin": origin})
        return answer.headers.get("access-control-allow-origin", "")

    assert [allowed(origin) for origin in (WWW, ADMIN, "https://evil.test")] == [WWW, ADMIN, ""]


def test_tokens_are_limited_to_five_a_minute_and_the_rest_of_the_api_is_not(portun: System) -> None:
    answers = [portun.fetch(f"{DATA}/auth/v1/token", {}, b"{}").status for _ in range(12)]
    assert set(answers[:3]) == {200} and answers[-1] == 429 and answers.count(200) <= 7
    assert {portun.fetch(f"{DATA}/rest/v1/visitor_records").status for _ in range(30)} == {200}
    assert {portun.fetch(f"{DATA}/functions/v1/validate-qr", {}, b"{}").status for _ in range(5)} == {200}


def test_one_address_gets_a_hundred_pages_a_minute(portun: System) -> None:
    answers = [portun.fetch(WWW).status for _ in range(60)]
    assert answers[0] == 200 and answers[-1] == 429


def test_a_table_that_a_deploy_brings_takes_rows_from_the_start(portun: System) -> None:
    publish(portun.folder)
    run = deployed(portun)
    assert run.code == 0, run.tail
    assert run.output.index("Make the partitions of new tables") < run.output.index("wait until it is healthy")
    assert sql(portun, "SELECT count(*) FROM pg_inherits WHERE inhparent = 'visitor_record_logs'::regclass") == "3"
    owner = "SET ROLE portun_data; INSERT INTO visitor_record_logs (record_uid, action) VALUES ('7', 'in')"
    assert "INSERT 0 1" in sql(portun, owner)


def test_migrations_are_recorded_and_one_that_fails_leaves_the_old_release_serving(portun: System) -> None:
    recorded = "SELECT string_agg(name, ',' ORDER BY name) FROM shipshape_migrations"
    before = sql(portun, recorded)
    assert before == f"20251101090000_visitor_records.sql,20251114120000_add_blacklist_table.sql,{LOGS}.sql"
    name = "supabase/migrations/20251201000000_gates"
    publish(
        portun.folder, {f"{name}.sql": "CREATE TABLE gates (id int); SELECT nothing;", f"{name}_rollback.sql": "--"}
    )
    run = deployed(portun)
    assert run.code != 0
    for said in (
        "portun-data: migrate: release",
        "goes on serving",
        "20251201000000_gates.sql failed and was taken back",
    ):
        assert said in run.output, run.tail
    assert sql(portun, recorded) == before and sql(portun, "SELECT to_regclass('gates') IS NULL") == "t"
    assert portun.fetch(f"{DATA}/health").status == 200


def test_a_release_with_more_than_one_percent_of_errors_is_led_back_by_itself(portun: System) -> None:
    name = "supabase/migrations/20251201000000_gates"
    gates = {f"{name}.sql": "CREATE TABLE gates (id int);", f"{name}_rollback.sql": "DROP TABLE gates;"}
    publish(portun.folder, gates)
    good = deployed(portun)
    assert good.code == 0, good.tail
    main = EXAMPLE.joinpath("api", "main.py").read_text(encoding="utf-8").replace('"FAULTS", "0"', '"FAULTS", "0.2"')
    publish(
        portun.folder,
        {
            f"{name}.sql": "CREATE TABLE gates (id int);",
            f"{name}_rollback.sql": "DROP TABLE gates;",
            "api/main.py": main,
        },
    )
    resolve = f"data.portun.app:443:{HOSTS['portun1']}"
    load = subprocess.Popen(
        [
            *("timeout", "120", "bash", "-c"),
            f"while true; do curl --silent --output /dev/null --cacert {settings.CA_CERTIFICATE} --resolve {resolve} "
            f"{DATA}/rest/v1/visitor_records; sleep 0.05; done",
        ]
    )
    try:
        portun.extra["app_watch_seconds"] = 30
        bad = deployed(portun)
    finally:
        portun.extra["app_watch_seconds"] = 3
        load.terminate()
        load.wait(timeout=30)
    assert bad.code != 0
    assert "portun-data: watch:" in bad.output and "answers were server errors" in bad.output, bad.tail
    assert "was rolled back" in bad.output
    assert {portun.fetch(f"{DATA}/rest/v1/visitor_records").status for _ in range(20)} == {200}


def test_a_rollback_takes_the_database_back_when_asked_to(portun: System) -> None:
    assert sql(portun, "SELECT to_regclass('gates') IS NULL") == "f"
    run = portun.play("playbooks/rollback.yml", "-e", "app=portun-data", "-e", "migrations=undo")
    assert run.code == 0, run.tail
    assert sql(portun, "SELECT to_regclass('gates') IS NULL") == "t"
    assert portun.fetch(f"{DATA}/health").status == 200


def first_backup(portun: System, host: str) -> str:
    """When it was made; nobody has asked for it."""
    made = "/var/lib/shipshape/pgbackrest/last-success"
    return portun.ssh(f"for second in $(seq 90); do test -e {made} && break; sleep 1; done; cat {made}", host)


def test_the_database_goes_back_to_the_moment_before_a_mistake(portun: System) -> None:
    first_backup(portun, "portun1")
    rows = sql(portun, "SELECT count(*) FROM visitor_records")
    moment = sql(portun, "SELECT clock_timestamp() FROM pg_sleep(1)")
    sql(portun, "SELECT pg_sleep(1); DROP TABLE visitor_records CASCADE")
    too_early = restored(portun, "-e", "to=2001-01-01")
    assert too_early.code != 0 and "possible is every moment from" in too_early.output, too_early.tail
    beside = restored(portun, "-e", f"to='{moment}'")
    assert beside.code == 0 and "with all that was committed up to" in beside.output, beside.tail
    assert sql(portun, "SELECT to_regclass('visitor_records') IS NULL") == "t"
    promoted = restored(portun, "-e", "promote=true")
    assert promoted.code == 0, promoted.tail
    assert sql(portun, "SELECT count(*) FROM visitor_records") == rows
    assert portun.fetch(f"{DATA}/health").status == 200


@FAILOVER
def test_backups_and_moments_go_on_from_the_new_primary_after_a_promotion(portun: System) -> None:
    # After the restore the copy is one of another past, and is made anew.
    run = portun.play("site.yml")
    assert run.code == 0, run.tail
    old = first_backup(portun, "portun1")
    run = portun.play("playbooks/promote.yml")
    assert run.code == 0 and "portun2 is the primary" in run.output, run.tail
    assert portun.fetch(f"{DATA}/health").status == 200
    run = portun.play("site.yml")
    assert run.code == 0, run.tail
    again = portun.play("site.yml", "--diff")
    assert (again.code, again.count("changed")) == (0, 0), again.tail

    first_backup(portun, "portun2")
    # It may have failed before the new primary's repository was there.
    archiver = (
        "SELECT last_archived_time > coalesce(last_failed_time, '-infinity'), current_setting('archive_mode') "
        "FROM pg_stat_archiver"
    )
    assert sql(portun, archiver, "portun2") == "t|on"
    assert sql(portun, archiver) == "|off"
    cron = "ls /etc/cron.d/shipshape-pgbackrest 2>&1 || true"
    assert "No such file" in portun.ssh(cron) and "No such file" not in portun.ssh(cron, "portun2")
    assert portun.ssh("cat /var/lib/shipshape/pgbackrest/last-success") == old

    owner = "SET ROLE portun_data; INSERT INTO visitor_record_logs (record_uid, action) SELECT n, 'out' FROM "
    sql(portun, f"{owner} generate_series(1, 1000) AS n", "portun2")
    count = "SELECT count(*) FROM visitor_record_logs WHERE action = 'out'"
    moment = sql(portun, "SELECT clock_timestamp() FROM pg_sleep(1)", "portun2")
    sql(portun, "SELECT pg_sleep(1); DELETE FROM visitor_record_logs", "portun2")
    run = portun.play("playbooks/backup.yml")
    assert run.code == 0 and "database portun_data" in run.output, run.tail
    beside = restored(portun, "-e", f"to='{moment}'", on="portun2")
    assert beside.code == 0 and "with all that was committed up to" in beside.output, beside.tail
    promoted = restored(portun, "-e", "promote=true", on="portun2")
    assert promoted.code == 0, promoted.tail
    assert sql(portun, count, "portun2") == "1000"
    assert portun.fetch(f"{DATA}/health").status == 200
    drill = portun.play("playbooks/drill.yml")
    assert drill.code == 0, drill.tail
    # The copy follows again, and has what was brought back.
    run = portun.play("site.yml")
    assert run.code == 0, run.tail
    assert sql(portun, count) == "1000" and sql(portun, "SELECT pg_is_in_recovery()") == "t"
