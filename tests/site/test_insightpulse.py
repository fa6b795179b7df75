"""System 1 from its inventory: Traefik leads the paths of one domain to other hosts and to a droplet behind it.

That droplet runs an image and a Superset of its shape: web, worker, scheduler and Redis. The tests build on each other,
in this order.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab import mirror, registry, repository, settings
from tests.site import system
from tests.site.system import PROJECT, Run, System

HOSTS = {"proxy1": "10.77.0.52", "ocr1": "10.77.0.53", "data1": "10.77.0.55"}
DOMAINS = ("insightpulseai.net", "ocr.insightpulseai.net")
SITE, OCR = "https://insightpulseai.net", "https://ocr.insightpulseai.net"
SUPERSET = f"{SITE}/superset"
APP_ORIGIN = "https://app.insightpulseai.net"
EXAMPLE = PROJECT / "examples" / "insightpulse"
#: Debian 12 has no package of pgvector, and an image of Debian 13 takes a while to build.
VECTORS = settings.EVERYTHING
#: Seconds between two things that the scheduler asks for: examples/insightpulse/superset/work.py.
TICK = 2.0


def publish(folder: Path, note: str = "") -> str:
    """The example as a commit of its repository; with a note, one more."""
    copy = folder / "source"
    subprocess.run(["rm", "-rf", str(copy)], check=True)
    subprocess.run(["cp", "-r", str(EXAMPLE), str(copy)], check=True)
    if note:
        (copy / "superset" / "NOTE").write_text(note, encoding="utf-8")
    return repository.publish(copy, "insightpulse")


@pytest.fixture(scope="module")
def pulse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("insightpulse")
    store = {"data1": HOSTS["data1"]}
    system.start("insightpulse", {host: address for host, address in HOSTS.items() if host not in store}, DOMAINS)
    system.start("insightpulse", store, image="debian-13" if VECTORS else "")
    publish(folder)
    registry.ensure_registry(["1.4=1.4"])
    inventory = folder / "inventory"
    shutil.copytree(PROJECT / "inventories" / "insightpulse", inventory)
    main = inventory / "group_vars" / "all" / "main.yml"
    if not VECTORS:
        text = main.read_text(encoding="utf-8")
        assert ", extensions: [vector]" in text
        main.write_text(text.replace(", extensions: [vector]", ""), encoding="utf-8")
    given = System(inventory, HOSTS, folder, system.bucket("shipshape-pulse"), DOMAINS)
    with mirror.traefik(folder, HOSTS["proxy1"]) as address:
        given.extra = {
            "vault_insightpulse_admin_key": settings.SSH_KEY.with_suffix(".pub").read_text(encoding="utf-8").strip(),
            "vault_insightpulse_s3": given.s3,
            "vault_insightpulse_backup_password": given.secret("pulse_backup"),
            "vault_insightpulse_registry": {"host": registry.DOMAIN, **registry.login()},
            "traefik_mirror": address,
            "app_watch_seconds": 3,
        }
        # Where the project's own packages cannot be had, those of the distribution.
        given.instead = {"postgresql_origin": "distribution", "postgresql_version": "17" if VECTORS else "15"}
        yield given
    system.stop("insightpulse", HOSTS)


def curl(url: str, *arguments: str, timeout: int = 60) -> subprocess.CompletedProcess[str]:
    """Ask from outside, with what else a test needs curl for; prints the status."""
    domain = url.split("/")[2]
    resolve = ["--resolve", f"{domain}:443:{HOSTS['proxy1']}", "--cacert", str(settings.CA_CERTIFICATE)]
    command = ["curl", "--silent", "--output", "/dev/null", "--write-out", "%{http_code}", *resolve, *arguments, url]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)


@contextmanager
def asked_all_the_time(pulse: System, *urls: str) -> Iterator[dict[str, list[str]]]:
    """What went wrong, by URL, and under "asked" how often each was asked."""
    ended, found = threading.Event(), {url: list[str]() for url in urls}
    counts = dict.fromkeys(urls, 0)

    def ask(url: str) -> None:
        while not ended.wait(0.05):
            counts[url] += 1
            try:
                answer = pulse.fetch(url)
                problem = "" if answer.status == 200 else f"{answer.status} {answer.body[:200]}"
            except AssertionError as error:
                problem = str(error)
            found[url] += [problem] if problem else []

    threads = [threading.Thread(target=ask, args=(url,)) for url in urls]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert min(counts.values()) > 50, counts


def asked(pulse: System) -> list[float]:
    """When the scheduler has asked for what it asks for every two seconds."""
    return [float(moment) for moment in pulse.fetch(f"{SUPERSET}/api/v1/refresh").json()["asked"]]


def deployed(pulse: System, app: str, *arguments: str) -> Run:
    run = pulse.play("playbooks/deploy.yml", "-e", f"app={app}", *arguments)
    assert run.code == 0, run.tail
    return run


def test_it_comes_up_from_its_inventory_and_a_second_run_changes_nothing(pulse: System) -> None:
    run = pulse.play("site.yml")
    assert run.code == 0, run.tail
    again = pulse.play("site.yml", "--diff")
    assert (again.code, again.count("changed")) == (0, 0), again.tail
    password = registry.login()["password"]
    assert password not in run.output + again.output


def test_each_path_is_answered_by_its_host(pulse: System) -> None:
    web, odoo = pulse.fetch(f"{SITE}/about?x=1").json(), pulse.fetch(f"{SITE}/odoo/web/health").json()
    assert (web["host"], web["path"]) == ("insightpulse-web.ondigitalocean.app", "/about")
    assert (odoo["host"], odoo["path"]) == ("odoo-saas-platform.ondigitalocean.app", "/web/health")
    assert odoo["prefix"] == "/odoo" and web["script_name"] == odoo["script_name"] == ""
    superset = pulse.fetch(SUPERSET).json()
    assert (superset["script_name"], superset["path"]) == ("/superset", "/")
    assert pulse.fetch(f"{SUPERSET}/health").body == "OK"
    # A path that merely begins alike is not theirs.
    assert pulse.fetch(f"{SITE}/supersets").json()["host"] == "insightpulse-web.ondigitalocean.app"


def test_http_leads_to_https_and_nothing_older_than_tls_1_2_is_spoken(pulse: System) -> None:
    answer = pulse.fetch("http://insightpulseai.net/odoo?x=1")
    assert (answer.status, answer.headers["location"]) == (301, f"{SITE}/odoo?x=1")
    assert curl(f"{SITE}/", "--tlsv1.2", "--tls-max", "1.2").returncode == 0
    assert curl(f"{SITE}/", "--tlsv1.3").returncode == 0
    assert curl(f"{SITE}/", "--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0").returncode == 35


def test_headers_are_sensible_and_scripts_of_named_origins_alone_may_read(pulse: System) -> None:
    for url in (SITE, f"{SUPERSET}/health", f"{OCR}/health"):
        headers = pulse.fetch(url).headers
        assert headers["strict-transport-security"].startswith("max-age=31536000")
        assert headers["x-content-type-options"] == "nosniff" and "x-frame-options" in headers
    for url in (SITE, f"{SUPERSET}/health", f"{OCR}/health"):
        allowed = [
            pulse.fetch(url, {"Origin": origin}).headers.get("access-control-allow-origin", "")
            for origin in (APP_ORIGIN, "https://evil.test")
        ]
        assert allowed == [APP_ORIGIN, ""]


def test_one_address_gets_a_hundred_pages_a_minute(pulse: System) -> None:
    # As one process, since one a request would be slower than the limit on a busy machine.
    began = time.monotonic()
    answered = curl(f"{SITE}/about?[1-200]", "--write-out", "%{http_code} ").stdout.split()
    lasted, allowed = time.monotonic() - began, answered.count("200")
    assert set(answered) == {"200", "429"} and len(answered) == 200
    # Twenty may come at once, beside the one that a visitor is allowed every 0.6 s.
    assert allowed <= 21 + 1 + lasted * 100 / 60, f"{allowed} in {lasted:.1f} s"
    # What has no such limit is asked as often as one likes.
    assert {pulse.fetch(f"{OCR}/health").status for _ in range(30)} == {200}


def test_the_certificate_served_is_the_one_that_traefik_keeps_for_root_alone(pulse: System) -> None:
    # Each authority has a file of its own; acme.json is Let's Encrypt's.
    kept = "/var/lib/traefik/acme-ca.test.json"
    assert pulse.ssh(f"stat -c '%a %U' {kept}").split()[0] == "600"
    script = f"""python3 - <<'END'
import base64, json, subprocess
for resolver in json.load(open("{kept}")).values():
    for each in resolver["Certificates"]:
        pem = base64.b64decode(each["certificate"])
        said = subprocess.run(["openssl", "x509", "-noout", "-serial"], input=pem, capture_output=True, check=True)
        print(each["domain"]["main"], said.stdout.decode().strip().partition("=")[2])
END"""
    serials = dict(line.split() for line in pulse.ssh(script).splitlines())
    program = (PROJECT / "molecule/certbot/served.py", HOSTS["proxy1"], settings.CA_CERTIFICATE, *DOMAINS)
    words = [sys.executable, *map(str, program)]
    served = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    assert served == {domain: serials[domain] for domain in DOMAINS}


def test_a_change_of_the_watched_file_is_in_force_without_a_restart(pulse: System) -> None:
    process = pulse.ssh("systemctl show traefik --property=MainPID --value")
    text = """
http:
  routers:
    watched:
      rule: Host(`insightpulseai.net`) && Path(`/watched`)
      entryPoints: [websecure]
      priority: 100000
      service: noop@internal
      middlewares: [watched]
      tls: {}
  middlewares: {watched: {redirectRegex: {regex: .*, replacement: https://insightpulseai.net/seen}}}
"""
    written = "/etc/traefik/dynamic/watched.yml"
    try:
        pulse.ssh(f"cat >{written}.new <<'END'\n{text}\nEND\nchmod 644 {written}.new; mv {written}.new {written}")
        deadline = time.monotonic() + 10
        while (answer := pulse.fetch(f"{SITE}/watched")).status != 302 and time.monotonic() < deadline:
            time.sleep(0.3)
        assert (answer.status, answer.headers.get("location")) == (302, f"{SITE}/seen"), answer
    finally:
        pulse.ssh(f"rm --force {written}")
    assert pulse.ssh("systemctl show traefik --property=MainPID --value") == process


def test_an_image_of_19_megabytes_is_scanned_in_time_and_one_of_21_is_refused(pulse: System) -> None:
    def scan(megabytes: int) -> str:
        picture = pulse.folder / "picture.png"
        picture.write_bytes(b"\x89PNG" + bytes(megabytes * 1000 * 1000 if megabytes < 20 else megabytes * 1024 * 1024))
        return curl(f"{OCR}/api/v1/ocr/scan", "--form", f"file=@{picture};type=image/png").stdout

    began = time.monotonic()
    assert scan(19) == "200"
    assert time.monotonic() - began < 5
    assert scan(21) == "413"
    assert "ocr_scans_total 1" in pulse.fetch(f"{OCR}/metrics").body


def test_a_query_that_is_queued_through_the_web_is_answered_by_the_worker(pulse: System) -> None:
    queued = pulse.fetch(f"{SUPERSET}/api/v1/query", {}, b"").json()["id"]
    deadline = time.monotonic() + 20
    while (found := pulse.fetch(f"{SUPERSET}/api/v1/query/{queued}").json())["state"] != "SUCCESS":
        assert time.monotonic() < deadline, found
        time.sleep(0.3)
    assert found["result"] == 144


def test_deploys_lose_no_request_and_the_scheduler_asks_once_for_each_time(pulse: System) -> None:
    began = time.time()
    registry.ensure_registry(["1.5=1.5"])
    publish(pulse.folder, "another")
    before = pulse.fetch(SUPERSET).json()["version"]
    with asked_all_the_time(pulse, f"{OCR}/metrics", f"{SUPERSET}/health") as failed:
        deployed(pulse, "ocr", "-e", "version=1.5")
        deployed(pulse, "superset")
    assert not any(failed.values()), failed
    assert pulse.fetch(f"{OCR}/health").json()["version"] == "1.5"
    assert pulse.fetch(SUPERSET).json()["version"] != before
    time.sleep(TICK + 1)
    moments = [moment for moment in asked(pulse) if moment > began - TICK]
    gaps = [later - earlier for earlier, later in zip(moments, moments[1:], strict=False)]
    # Two schedulers would ask twice within a moment; while none runs, for the time of the change, one waits.
    assert len(gaps) > 10 and min(gaps) > 0.8 * TICK and sum(gap > 2 * TICK for gap in gaps) <= 2, gaps
    # And each was done once.
    answer = pulse.fetch(f"{SUPERSET}/api/v1/refresh").json()
    assert len(answer["asked"]) - answer["done"] in (0, 1), answer


def test_web_worker_and_scheduler_are_stopped_and_started_together(pulse: System) -> None:
    script = """
colour=$(python3 -c 'import json; print(json.load(open("/srv/superset/activation.json"))["colour"])')
all="superset@$colour superset.worker@$colour superset.beat@$colour"
states() { systemctl is-active $all | sort --unique; }
all_are() { for _ in $(seq 60); do [ "$(states)" != $1 ] || return 0; sleep 0.5; done; }
systemctl stop superset@$colour; all_are inactive; systemctl is-active $all || true
systemctl start superset@$colour; all_are active; systemctl is-active $all
"""
    assert pulse.ssh(script, host="ocr1").split() == ["inactive"] * 3 + ["active"] * 3
    assert pulse.ssh("systemctl is-active redis-server@queue", host="data1") == "active"


#: In front of a query: where an app finds its database, from what it is told.
URL = """url=$(sed -n 's/^{variable}=//p' $(readlink -f /srv/{app}/current)/env | tr -d '"')
"""


def query(pulse: System, app: str, sql: str) -> str:
    """What PostgreSQL answers an app, on its droplet and at the address that the app has; also when it refuses."""
    psql = f"psql -XAtq -v ON_ERROR_STOP=1 \"$url\" 2>&1 <<'SQL' || true\n{sql}\nSQL\n"
    return pulse.ssh(URL.format(app=app, variable="DATABASE_URL") + psql, host="ocr1")


def test_the_apps_have_schemas_and_roles_of_their_own_in_one_database(pulse: System) -> None:
    # The apps bring a driver of their own; the tests ask as a person would.
    pulse.ssh("apt-get -qq install --yes --no-install-recommends postgresql-client >/dev/null 2>&1", host="ocr1")
    who = "SELECT current_database(), current_user"
    assert query(pulse, "superset", who) == "insightpulse|insightpulse"
    assert query(pulse, "ocr", who) == "insightpulse|ocr"
    charts = "CREATE TABLE IF NOT EXISTS superset.charts (name text); INSERT INTO superset.charts VALUES ('sales')"
    assert query(pulse, "superset", charts) == ""
    assert query(pulse, "superset", "SELECT DISTINCT name FROM superset.charts") == "sales"
    assert (
        query(pulse, "ocr", "CREATE TABLE IF NOT EXISTS ocr.scans (text text); SELECT count(*) FROM ocr.scans") == "0"
    )
    assert "permission denied" in query(pulse, "ocr", "SELECT * FROM superset.charts")
    assert "permission denied" in query(pulse, "ocr", "CREATE TABLE superset.mine (id int)")


@pytest.mark.skipif(not VECTORS, reason="Debian 12 has no package of pgvector: make test-all")
def test_vectors_of_1536_numbers_are_kept_and_found_by_their_likeness(pulse: System) -> None:
    vector = "(SELECT array_agg(sin({0} * i)::real) FROM generate_series(1, 1536) i)::vector"
    sql = f"""CREATE TABLE IF NOT EXISTS superset.scans (name text PRIMARY KEY, embedding vector(1536));
INSERT INTO superset.scans VALUES ('near', {vector.format(1)}), ('far', {vector.format(7)}) ON CONFLICT DO NOTHING;
SELECT name FROM superset.scans ORDER BY embedding <-> {vector.format(1.0001)} LIMIT 1"""
    assert query(pulse, "superset", sql) == "near"
    assert "expected 1536 dimensions, not 2" in query(
        pulse, "superset", "INSERT INTO superset.scans VALUES ('x', '[1,2]')"
    )


def test_security_by_row_holds_for_the_apps_through_the_pooler(pulse: System) -> None:
    """A transaction says whose rows it wants; not even the owner of the table sees others."""
    filled = """CREATE TABLE IF NOT EXISTS superset.notes (tenant text, body text);
ALTER TABLE superset.notes ENABLE ROW LEVEL SECURITY; ALTER TABLE superset.notes FORCE ROW LEVEL SECURITY;
DROP POLICY IF EXISTS own ON superset.notes;
CREATE POLICY own ON superset.notes USING (tenant = current_setting('app.tenant', true));
BEGIN; SET LOCAL app.tenant = 'one'; DELETE FROM superset.notes;
INSERT INTO superset.notes VALUES ('one', 'of one'); COMMIT;
BEGIN; SET LOCAL app.tenant = 'two'; DELETE FROM superset.notes;
INSERT INTO superset.notes VALUES ('two', 'of two'); COMMIT"""
    assert "ERROR" not in query(pulse, "superset", filled)
    seen = "BEGIN; SET LOCAL app.tenant = '{0}'; {1}; COMMIT"
    assert query(pulse, "superset", seen.format("one", "SELECT body FROM superset.notes")) == "of one"
    assert query(pulse, "superset", seen.format("two", "SELECT body FROM superset.notes")) == "of two"
    assert query(pulse, "superset", "SELECT count(*) FROM superset.notes") == "0"
    refused = query(pulse, "superset", seen.format("one", "INSERT INTO superset.notes VALUES ('two', 'x')"))
    assert "violates row-level security policy" in refused


@pytest.mark.parametrize(("variable", "port"), [("DATABASE_URL", 6543), ("DIRECT_DATABASE_URL", 5432)])
def test_who_comes_to_the_database_without_tls_is_refused(pulse: System, variable: str, port: int) -> None:
    script = """echo "$url" | grep -oE ':[0-9]+/'
psql -XAtqc 'SELECT 1' "$url"
plain=$(echo "$url" | sed 's/sslmode=[a-z-]*/sslmode=disable/')
PGSSLMODE=disable psql -XAtqc 'SELECT 1' "$plain" 2>&1 || echo refused"""
    said = pulse.ssh(URL.format(app="superset", variable=variable) + script, host="ocr1").splitlines()
    assert (said[:2], said[-1]) == ([f":{port}/", "1"], "refused"), said[2:]
    assert any(
        word in line for line in said[2:-1] for word in ("TLS", "SSL", "no encryption", "no authentication", "rejected")
    ), said[2:]


def test_queries_take_less_than_100_milliseconds_by_the_95th_percentile(pulse: System) -> None:
    moments = query(pulse, "superset", "\\timing on\n" + "SELECT count(*) FROM superset.charts;\n" * 100)
    taken = sorted(float(line.split()[1]) for line in moments.splitlines() if line.startswith("Time:"))
    assert len(taken) == 100 and taken[94] < 100, taken[-10:]


@pytest.mark.skipif(not settings.EVERYTHING, reason="the roles' scenarios rehearse; make test-all")
def test_every_month_dump_and_files_are_restored_and_compared(pulse: System) -> None:
    timetable = pulse.ssh("cat /etc/cron.d/shipshape-backup", host="data1")
    assert re.search(r"^0 5 1 \* \* root .*shipshape-backup drill ", timetable, re.MULTILINE), timetable
    for playbook in ("backup", "drill"):
        run = pulse.play(f"playbooks/{playbook}.yml")
        assert run.code == 0, run.tail
    report = json.loads(pulse.ssh("cat $(ls /var/lib/shipshape/backup/drills/*.json | tail -1)", host="data1"))
    (database,) = report["databases"]
    assert report["status"] == "ok" and database["name"] == "insightpulse", report
    # The rows of both apps, loaded with their owners; and the index of the vectors.
    assert database["tables"] >= 3 and database["rows"] > 0 and database["differ"] == [], report
