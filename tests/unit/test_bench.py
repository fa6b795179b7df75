"""What `make bench` makes of what it has measured."""

from __future__ import annotations

import argparse
import json
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.bench import __main__ as bench
from tests.bench import core, database, deploys, kinds, load, recovery, server, throughput, tls
from tests.bench.commands import BIN, BenchError
from tests.bench.ground import Ground
from tests.bench.report import Row, faster, slower, table
from tests.lab import inventory, registry, repository, settings
from tests.unit.nginx_lab import make_certificate, nginx_program

WELL = """Running 900s test @ https://python.bench.test/
  1 threads and 4 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.46ms    2.40ms  60.17ms   96.32%
    Req/Sec   368.22     28.86   414.00     89.47%
  30412 requests in 1.38m, 5.57MB read
Requests/sec:    366.59
Transfer/sec:     68.73KB
Wrong answers: 0
"""
BADLY = """  21000 requests in 50.10s, 2.93MB read
  Socket errors: connect 1, read 2, write 3, timeout 4
  Non-2xx or 3xx responses: 5
Requests/sec:    419.16
Transfer/sec:     59.77KB
Wrong answers: 7
"""


def test_what_wrk_says_of_a_good_run_is_no_failure() -> None:
    seen = load.parse(WELL)
    assert (seen.requests, seen.failed, seen.faults) == (30412, 0, ())
    assert seen.seconds == pytest.approx(82.8)


def test_every_kind_of_failure_that_wrk_knows_counts_and_a_wrong_answer_once() -> None:
    seen = load.parse(BADLY)
    assert seen.failed == 1 + 2 + 3 + 4 + 7
    assert seen.faults == (
        "Socket errors: connect 1, read 2, write 3, timeout 4", "Non-2xx or 3xx responses: 5", "Wrong answers: 7",
    )  # fmt: skip


def test_statuses_count_where_nobody_looked_at_the_answers() -> None:
    assert load.parse(BADLY.replace("Wrong answers: 7\n", "")).failed == 1 + 2 + 3 + 4 + 5


def test_a_load_that_died_is_an_error_and_not_a_run_without_failures() -> None:
    with pytest.raises(BenchError, match="wrk gave no result:\nunable to connect"):
        load.parse("unable to connect to python.bench.test:https Connection refused\n")


class Client:
    """Stands for the client: `gone` is what it says of processes that are no more."""

    def __init__(self, gone: str) -> None:
        self.gone, self.scripts = gone, list[str]()

    def __call__(self, script: str) -> str:
        self.scripts.append(script)
        return "7" if "wrk" in script else self.gone if "kill" in script else WELL if "cat" in script else ""


def test_every_app_is_asked_over_kept_and_over_new_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client("")
    monkeypatch.setattr("tests.bench.ground.client", client)
    monkeypatch.setattr("tests.lab.droplet.put", lambda name, files: None)
    with load.under_load({"python": "https://python.bench.test/"}) as asked:
        started = [script for script in client.scripts if "wrk" in script]
        assert ["Connection: keep-alive" in script for script in started] == [True, False]
        assert all("--connections 4" in script for script in started)
    assert asked.results["python"].requests == 2 * 30412


def test_a_load_that_ended_too_early_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.bench.ground.client", Client("7"))
    monkeypatch.setattr("tests.lab.droplet.put", lambda name, files: None)
    with pytest.raises(BenchError, match="the load ended before"), load.under_load({"python": "https://x.test/"}):
        pass


def test_kept_and_new_connections_are_added_up() -> None:
    both = load.parse(WELL) + load.parse(BADLY)
    assert (both.requests, both.failed) == (51412, 17)


def test_deploys_pass_only_with_enough_requests_and_no_failure() -> None:
    assert deploys.verdict("static", "nginx", load.Result(20000, 0, 60.0)).good
    assert not deploys.verdict("static", "nginx", load.Result(19999, 0, 60.0)).good
    assert not deploys.verdict("static", "nginx", load.Result(90000, 1, 60.0)).good


def test_a_duration_is_compared_by_medians_and_the_limit_is_still_good() -> None:
    row = slower("redeploy", [2.0, 90.0, 1.0], "ping", [0.2, 0.2, 9.0], 10)
    assert (row.result, row.good) == ("10.00 x", True)
    assert not slower("redeploy", [2.1], "ping", [0.2], 10).good


def test_a_rate_is_compared_the_other_way_round() -> None:
    assert faster("requests/s", [950.0], "bare", [1000.0], 0.95).good
    assert not faster("requests/s", [949.0], "bare", [1000.0], 0.95).good


def test_rates_are_compared_pair_by_pair_so_that_a_slow_minute_of_the_machine_does_not_count() -> None:
    row = faster("requests/s", [960.0, 96.0, 480.0], "bare", [1000.0, 100.0, 500.0], 0.95)
    assert (row.result, row.good) == ("0.960 x", True)
    assert not faster("requests/s", [900.0, 990.0, 90.0], "bare", [1000.0, 1000.0, 100.0], 0.95).good


def test_table_has_a_line_for_each_figure_with_its_verdict() -> None:
    rows = [
        Row("a", "1.00 s", "ping 0.50 s", "2.00 x", "at most 3 x", True),
        Row("longer", "9.00 s", "", "A", "A+", False),
    ]
    heading, first, second = table(rows).splitlines()
    assert heading.split() == ["figure", "measured", "against", "result", "limit"]
    assert first == "a       1.00 s    ping 0.50 s  2.00 x  at most 3 x  ok"
    assert second == "longer  9.00 s                 A       A+           MISSED"


def finding(identifier: str, text: str) -> dict[str, Any]:
    return {"id": identifier, "severity": "INFO", "finding": text}


def test_only_the_best_grade_passes() -> None:
    row = tls.verdict("nginx", "modern", [finding("HSTS", "given"), finding("overall_grade", "A+")])
    assert (row.result, row.good) == ("A+", True)
    assert not tls.verdict("nginx", "modern", [finding("overall_grade", "A")]).good


def test_what_keeps_a_grade_down_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [finding("overall_grade", "A"), finding("grade_cap_reason_1", "Grade capped to A. HSTS is not offered")]
    tls.verdict("traefik", "intermediate", rows)
    assert "testssl.sh, traefik, intermediate: Grade capped to A. HSTS is not offered" in capsys.readouterr().err


def test_an_examination_without_a_grade_is_an_error() -> None:
    with pytest.raises(BenchError, match=r"testssl.sh gave 0 grades"):
        tls.rating([finding("engine_problem", "No engine or GOST support")])


def test_only_parts_that_there_are_can_be_chosen() -> None:
    assert bench.parts("core,tls") == ["core", "tls"]
    there_are = "core, database, recovery, deploys, throughput, tls"
    with pytest.raises(argparse.ArgumentTypeError, match=f"no part speed; there are: {there_are}"):
        bench.parts("core,speed")


def test_packages_are_those_of_the_plan_and_not_those_of_the_holds() -> None:
    output = (
        "--- before: packages\n+++ after: packages\n+nginx\n+docker-ce\n--- before: holds\n+++ after\n+postgresql\n"
    )
    assert core.installed_packages(output) == ["docker-ce", "nginx"]
    with pytest.raises(BenchError, match="no packages in"):
        core.installed_packages("ok: [bench]")


def test_inventory_of_the_measurement_is_a_valid_one_with_an_app_of_each_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    monkeypatch.setattr("tests.lab.settings.SSH_KEY", key)
    ground = Ground(tmp_path, "http://10.77.0.1:8000", proxy="traefik", policy="modern")
    variables = yaml.safe_load(Path(ground.inventory).read_text())["all"]["vars"]
    assert {name: app["type"] for name, app in variables["apps"].items()} == {
        f"bench-{kind}": kind for kind in kinds.KINDS
    }
    assert (variables["proxy"], variables["tls_policy"]) == ("traefik", "modern")
    checked = subprocess.run(
        [BIN / "ansible-playbook", "playbooks/validate.yml", "-i", ground.inventory],
        cwd=settings.PROJECT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize(
    "variables",
    [
        {"database": {"pool": database.POOL}},
        {
            "database": {"extensions": ["pgcrypto"]},
            "backup": {
                "s3": {
                    "endpoint": "https://s3.test",
                    "bucket": "b-1",
                    "access_key": "a1b2c3d4e5",
                    "secret_key": "f6g7h8i9j0",
                },
                "password": "0123456789abcdef0123",
                "recovery_days": 7,
            },
        },
    ],
)
def test_inventories_of_the_database_servers_are_valid(
    variables: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    monkeypatch.setattr("tests.lab.settings.SSH_KEY", key)
    hosts = inventory.write(tmp_path, server.inventory_of("10.77.0.115", **variables))
    checked = subprocess.run(
        [BIN / "ansible-playbook", "playbooks/validate.yml", "-i", hosts],
        cwd=settings.PROJECT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout


PGBENCH = """pgbench (15.14 (Debian 15.14-0+deb12u1))
transaction type: multiple scripts
scaling factor: 50
query mode: simple
number of clients: 8
number of threads: 2
maximum number of tries: 1
duration: 20 s
number of transactions actually processed: 41806
number of failed transactions: 0 (0.000%)
latency average = 3.827 ms
initial connection time = 12.104 ms
tps = 2090.411374 (without initial connection time)
SQL script 1: <builtin: TPC-B (sort of)>
 - weight: 1 (targets 50.0% of total)
 - 20911 transactions (50.0% of total, tps = 1045.605390)
"""
REFUSED = """pgbench (15.14 (Debian 15.14-0+deb12u1))
pgbench: error: connection to server at "127.0.0.1", port 6432 failed: FATAL:  no more connections allowed
pgbench: error: could not create connection for client 499
"""


def test_what_pgbench_says_of_a_good_run_is_its_rate_over_all_scripts() -> None:
    assert database.parsed(PGBENCH) == pytest.approx(2090.411374)


@pytest.mark.parametrize(
    "said",
    [
        REFUSED,
        PGBENCH.replace("failed transactions: 0 ", "failed transactions: 3 "),
        "pgbench: error: client 4 aborted in command 5 (SQL) of script 0; perhaps the backend died\n" + PGBENCH,
        PGBENCH.replace("without initial connection time", "including connections establishing"),
    ],
)
def test_a_run_of_pgbench_in_which_something_failed_is_no_measurement(said: str) -> None:
    with pytest.raises(BenchError, match="pgbench gave no result"):
        database.parsed(said)


def test_one_client_that_is_refused_misses_the_figure_and_none_passes() -> None:
    row = database.verdict(PGBENCH)
    assert (row.measured, row.result, row.good) == ("41806 transactions", "0 refused", True)
    row = database.verdict(REFUSED)
    assert (row.measured, row.result, row.good) == ("0 transactions", "1 refused", False)
    with pytest.raises(BenchError, match="pgbench gave no result"):
        database.verdict("sh: 1: pgbench: not found")


HISTORY = [recovery.Commit(1000, 1010, "1:a"), recovery.Commit(2000, 2010, "2:b"), recovery.Commit(3000, 3010, "2:b")]


def test_what_there_was_at_a_moment_is_what_the_last_commit_before_it_left() -> None:
    assert [recovery.content_at(HISTORY, moment) for moment in (1010, 1999, 2010, 9999)] == ["1:a", "1:a", "2:b", "2:b"]


@pytest.mark.parametrize("moment", [0, 999, 1000, 1009, 2000, 2005])
def test_of_a_moment_in_a_commit_or_before_the_first_nobody_knows(moment: int) -> None:
    assert recovery.content_at(HISTORY, moment) is None


def test_moments_to_restore_are_spread_over_the_history_and_never_within_a_commit() -> None:
    chance = random.Random(1)
    moments = [recovery.some_moment(HISTORY[:2], chance) for _ in range(500)]
    assert all(1010 <= moment <= 102010 and not 2000 <= moment < 2010 for moment in moments)
    assert any(moment > 50000 for moment in moments)


def test_the_history_is_read_as_psql_prints_it_with_the_empty_lines_of_its_pauses() -> None:
    assert recovery.commits_of("begun 10\ndone 12 1:a\n\nbegun 20\ndone 22 0:b\n\n") == [
        recovery.Commit(10, 12, "1:a"),
        recovery.Commit(20, 22, "0:b"),
    ]
    with pytest.raises(BenchError, match="cannot be read"):
        recovery.commits_of("begun 10\ndone 12 1:a\n\nbegun 20\n")


def test_a_random_history_has_all_that_a_table_can_meet() -> None:
    sql = recovery.history(random.Random(7), 60)
    assert sql.count("begun") == sql.count("done") == sql.count("BEGIN;") == 60
    assert all(sql.count(word) >= 5 for word in ("INSERT", "UPDATE", "DELETE", "ROLLBACK;", "COMMIT;"))


def test_a_moment_is_written_to_the_microsecond() -> None:
    assert recovery.as_time(1_764_149_520_000_042) == "2025-11-26 09:32:00.000042 UTC"


def test_the_loss_is_from_the_last_commit_that_came_back_to_the_last_that_a_client_was_told_of() -> None:
    told = {number: number * 1_000_000 for number in range(1, 101)}
    restored = {number: moment for number, moment in told.items() if number <= 40}
    row = recovery.loss(told, restored)
    assert (row.measured, row.result, row.good) == ("60 of 100 commits", "60.0 s lost", True)
    del restored[40]
    assert not recovery.loss(told, restored).good
    assert recovery.loss(told, told).result == "0.0 s lost"


def test_a_commit_that_is_missing_between_others_is_worse_than_a_late_one() -> None:
    told = {number: number for number in range(1, 101)}
    row = recovery.loss(told, {number: moment for number, moment in told.items() if number != 7})
    assert not row.good and row.result == "0.0 s lost; 1 lost in between"


def test_a_loss_of_which_nothing_is_known_is_no_measurement() -> None:
    with pytest.raises(BenchError, match="0 commits, 1 restored"):
        recovery.loss(recovery.commits("psql: error: no such database"), {1: 1})
    assert recovery.commits("1|10\n2|20\n") == {1: 10, 2: 20}


@pytest.mark.parametrize("kind", [kind for kind, how in kinds.KINDS.items() if "image" not in how.entry])
def test_each_version_of_an_app_is_published_as_another_content(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    published: list[tuple[str, dict[str, bytes]]] = []

    def keep(folder: Path, name: str) -> str:
        published.append((name, {path.name: path.read_bytes() for path in folder.iterdir()}))
        return ""

    monkeypatch.setattr(repository, "publish", keep)
    monkeypatch.setattr(registry, "ensure_registry", lambda: None)
    for version in ("one", "two"):
        kinds.KINDS[kind].publish(kinds.name_of(kind), version)
    (name, first), (_, second) = published
    assert name == f"bench-{kind}"
    assert first != second
    assert any(b"Bench app" in content for content in second.values())
    assert any(b"two" in content for content in second.values())


def test_each_version_of_an_image_is_pushed_under_the_tag_that_the_inventory_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pushed: list[list[str]] = []
    monkeypatch.setattr(registry, "ensure_registry", pushed.append)
    for version in ("one", "two"):
        kinds.KINDS["container"].publish("bench-container", version)
    assert pushed == [["bench=one"], ["bench=two"]]
    entry = kinds.declared("container")
    assert entry["image"].endswith("/ocr:bench") and "source" not in entry


def test_nginx_understands_what_is_written_for_the_bare_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_certificate(tmp_path, "python.bench.test")
    monkeypatch.setattr(throughput, "FOLDER", str(tmp_path))
    files, command = throughput.bare_nginx(f"{tmp_path}/cert.pem", f"{tmp_path}/key.pem", "127.0.0.1:20000")
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    tested = subprocess.run([nginx_program(), *command[1:], "-t"], capture_output=True, text=True, check=False)
    assert "syntax is ok" in tested.stderr, tested.stderr


def test_bare_traefik_has_no_middleware_and_the_least_version_of_ours() -> None:
    files, _ = throughput.bare_traefik("/c.pem", "/k.pem", "127.0.0.1:20000")
    dynamic = json.loads(files["dynamic.yml"])
    assert "middlewares" not in dynamic["http"]
    assert dynamic["http"]["services"]["app"]["loadBalancer"]["servers"] == [{"url": "http://127.0.0.1:20000"}]
    assert dynamic["tls"]["options"]["default"]["minVersion"] == "VersionTLS13"
