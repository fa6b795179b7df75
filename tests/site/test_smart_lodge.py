"""System 2 from its inventory: a Python API with its WebSocket and a Node frontend on one domain, PgBouncer, two Redis.

The tests build on each other, in this order.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.lab import listener, repository, settings
from tests.site import system
from tests.site.system import BIN, PROJECT, Response, Run, System

pytestmark = pytest.mark.skipif(not settings.EVERYTHING, reason="some minutes of packages alone: make test-all")

HOSTS = {"lodge1": "10.77.0.75"}
DOMAINS = ("smartlodgebudget.com", "www.smartlodgebudget.com")
SITE = "https://smartlodgebudget.com"
API = f"{SITE}/api/v1"
ADMIN = "admin@smartlodgebudget.com"
EXAMPLE = PROJECT / "examples" / "smart-lodge"
STAGING = PROJECT / "inventories" / "smart-lodge-staging"
VAULT = ("secret_key", "jwt_secret_key", "admin_password", "openai_key", "backup_password")
#: The lab has the source under another name than the inventory, which staging does not read either.
SOURCE = ("-e", "smart_lodge_git=https://git.test/smart-lodge.git")
MIGRATION = """
from alembic import op

revision, down_revision = "0002", "0001"


def upgrade():
    op.execute("{}")
"""


@dataclass
class Lodge:
    """The system, its webhook, and who is logged in."""

    system: System
    heard: list[str]
    token: str = ""

    def play(self, playbook: str, *arguments: str) -> Run:
        return self.system.play(playbook, *SOURCE, *arguments)

    def ask(self, path: str, body: Any = None) -> Response:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.token}"}
        sent = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.system.fetch(f"{API}{path}", headers, sent)

    def log_in(self) -> Response:
        password = self.system.secret("admin_password")
        answer = self.ask("/login", {"email": ADMIN, "password": password})
        self.token = answer.json().get("access_token", "")
        return answer

    def sql(self, query: str) -> str:
        return self.system.ssh(f'cd /\nrunuser -u postgres -- psql -At smart_lodge_api -c "{query}"')


def publish(folder: Path, files: dict[str, str] | None = None) -> str:
    """The example with some files more, as a commit of its repository."""
    copy = folder / "source"
    subprocess.run(["rm", "-rf", str(copy)], check=True)
    subprocess.run(["cp", "-r", str(EXAMPLE), str(copy)], check=True)
    for name, text in (files or {}).items():
        (copy / name).write_text(text, encoding="utf-8")
    return repository.publish(copy, "smart-lodge")


@pytest.fixture(scope="module")
def lodge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lodge]:
    system.start("lodge", HOSTS, DOMAINS)
    folder = tmp_path_factory.mktemp("lodge")
    publish(folder)
    given = System(PROJECT / "inventories" / "smart-lodge", HOSTS, folder, system.bucket("shipshape-lodge"), DOMAINS)
    path = f"/T0/{given.secret('webhook')}"
    with listener.webhook(folder, HOSTS["lodge1"], path) as (address, heard):
        given.extra = {
            **{f"vault_smart_lodge_{name}": given.secret(name) for name in VAULT},
            "vault_smart_lodge_sentry_dsn": f"https://{given.secret('sentry')}@sentry.test/2",
            "vault_smart_lodge_admin_key": settings.SSH_KEY.with_suffix(".pub").read_text(encoding="utf-8").strip(),
            "vault_smart_lodge_s3": given.s3,
            "vault_smart_lodge_webhook": address,
            "app_watch_seconds": 3,
        }
        yield Lodge(given, heard)
    system.stop("lodge", HOSTS)


def curl(url: str, *arguments: str) -> list[str]:
    """Ask from outside, with what else a test needs curl for."""
    resolve = ["--resolve", f"{DOMAINS[0]}:443:{HOSTS['lodge1']}", "--cacert", str(settings.CA_CERTIFICATE)]
    return ["curl", "--silent", *resolve, *arguments, url]


@contextmanager
def taking_long(seconds: int) -> Iterator[subprocess.Popen[str]]:
    """A request that lasts, beside what else is done."""
    url = f"{API}/extraction?seconds={seconds}"
    process = subprocess.Popen(curl(url, "--max-time", "120"), stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait(timeout=10)


def test_it_comes_up_from_its_inventory_and_a_second_run_changes_nothing(lodge: Lodge) -> None:
    run = lodge.play("site.yml", "--diff")
    assert run.code == 0, run.tail
    for secret in [*lodge.system.secrets.values(), lodge.system.s3["secret_key"]]:
        assert secret not in run.output
    began = time.monotonic()
    # Longer than the minute after which a request ends elsewhere, beside what a second run takes.
    with taking_long(62) as process:
        again = lodge.play("site.yml", "--diff")
        assert (again.code, again.count("changed")) == (0, 0), again.tail
        verified = lodge.play("playbooks/verify.yml")
        assert verified.code == 0, verified.tail
        said, _ = process.communicate(timeout=90)
    assert json.loads(said) == {"seconds": 62} and time.monotonic() - began >= 62


def test_frontend_api_and_websocket_share_one_domain(lodge: Lodge) -> None:
    health = lodge.system.fetch(f"{SITE}/health").json()
    assert (health["status"], health["environment"]) == ("healthy", "production")
    for path in ("/", "/dashboard"):
        page = lodge.system.fetch(f"{SITE}{path}")
        assert page.status == 200 and f'data-api="{SITE}/api"' in page.body
    assert lodge.system.fetch(f"{SITE}/nowhere").status == 404
    assert lodge.system.fetch("https://www.smartlodgebudget.com/x").headers["location"] == f"{SITE}/x"
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "c2hpcHNoYXBlIHRlc3QhIQ==",
    }
    words = [word for name, value in upgrade.items() for word in ("--header", f"{name}: {value}")]
    # curl waits for the end of the stream, which a WebSocket does not have: the time-out is how it ends.
    command = curl(f"{SITE}/api/ws", "--include", "--http1.1", "--max-time", "2", *words)
    spoken = subprocess.run(command, capture_output=True, check=False).stdout
    assert b"101 Switching Protocols" in spoken and b'"ready"' in spoken


def test_the_first_admin_has_a_bcrypt_hash_and_logs_in_with_the_vaults_password(lodge: Lodge) -> None:
    assert lodge.sql("SELECT count(*) FROM users WHERE is_admin") == "1"
    assert lodge.sql("SELECT substr(password_hash, 1, 4) FROM users") == "$2b$"
    assert lodge.ask("/login", {"email": ADMIN, "password": "guessed"}).status == 401
    assert lodge.log_in().status == 200
    assert lodge.ask("/me").json() == {"email": ADMIN}


def test_sessions_and_results_are_in_redis_each_in_its_own(lodge: Lodge) -> None:
    another, first = Lodge(lodge.system, lodge.heard), lodge.ask("/analysis").json()
    assert another.log_in().status == 200 and another.ask("/logout", {}).status == 200
    assert (another.ask("/me").status, lodge.ask("/me").status) == (401, 200)
    assert (first["cached"], lodge.ask("/analysis").json()["cached"]) == (False, True)
    # What is promised of a session, and not of a result: that it is there after a restart.
    lodge.system.ssh("systemctl restart redis-server@sessions redis-server@cache")
    assert lodge.ask("/me").json() == {"email": ADMIN}
    assert lodge.ask("/analysis").json()["cached"] is False


def test_requests_come_to_the_database_by_way_of_pgbouncer_and_migrations_past_it(lodge: Lodge) -> None:
    console = "runuser -u pgbouncer -- psql -XAt -h /var/run/postgresql -p 6432 pgbouncer -c 'SHOW POOLS'"
    assert "smart_lodge_api" in lodge.system.ssh(f"cd /; {console}")
    sizes = console.replace("SHOW POOLS", "SHOW DATABASES")
    assert "|20|" in lodge.system.ssh(f"cd /; {sizes} | grep ^smart_lodge_api")
    script = lodge.system.ssh("cat /srv/smart-lodge-api/current/migrate")
    assert "DATABASE_URL=$DIRECT_DATABASE_URL" in script and "alembic upgrade head" in script
    assert lodge.sql("SELECT version_num FROM alembic_version") == "0001"


def test_settings_are_in_a_file_that_the_apps_user_alone_can_read(lodge: Lodge) -> None:
    script = """file=$(readlink -f /srv/smart-lodge-api/current)/env; stat -c '%U %a' $file; cat $file
runuser -u smart-lodge-web -- cat $file 2>&1 | grep -o 'Permission denied' || true"""
    owner, *lines = lodge.system.ssh(script).splitlines()
    assert (owner, lines[-1]) == ("smart-lodge-api 600", "Permission denied")
    text = "\n".join(lines)
    for name in VAULT:
        assert (lodge.system.secret(name) in text) is (name != "backup_password"), name
    # Nowhere else: neither in the code nor in what the other app is told.
    elsewhere = "/srv/smart-lodge-*/current/src /srv/smart-lodge-web/current/env"
    wanted = " ".join(f"-e {lodge.system.secret(name)}" for name in VAULT)
    assert (
        lodge.system.ssh(f"grep --recursive --count --fixed-strings {wanted} {elsewhere} | grep -v ':0$' || true") == ""
    )


def test_a_document_of_49_megabytes_is_taken_and_one_of_51_is_refused(lodge: Lodge) -> None:
    sent = lodge.ask("/documents/budget.pdf", b"%PDF" + bytes(49 * 1024 * 1024))
    assert (sent.status, sent.json()) == (201, {"id": 1, "bytes": 49 * 1024 * 1024 + 4})
    assert lodge.ask("/documents/atlas.pdf", bytes(51 * 1024 * 1024)).status == 413
    assert {"eng", "tur"} <= set(lodge.ask("/languages").json())


def test_a_deploy_migrates_and_keeps_documents_sessions_and_the_admin(lodge: Lodge) -> None:
    before = lodge.sql("SELECT id, password_hash FROM users")
    name = "backend/migrations/versions/0002_audit.py"
    publish(lodge.system.folder, {name: MIGRATION.format("CREATE TABLE audit (id int)")})
    del lodge.heard[:]
    # Another password in the vault is not the admin's: that one was sown once.
    lodge.system.extra["vault_smart_lodge_admin_password"] = "another-" + lodge.system.secret("later")
    run = lodge.play("playbooks/deploy.yml", "-e", "app=smart-lodge-api")
    assert run.code == 0, run.tail
    assert lodge.sql("SELECT version_num, to_regclass('audit') FROM alembic_version") == "0002|audit"
    assert lodge.sql("SELECT id, password_hash FROM users") == before
    assert lodge.ask("/me").json() == {"email": ADMIN}
    assert len(lodge.ask("/documents/1").body) == 49 * 1024 * 1024 + 4
    begun, deployed = lodge.heard
    assert "lodge1: Deploy of smart-lodge-api" in begun and "begins" in begun
    assert "lodge1: Deployed: smart-lodge-api" in deployed


def test_a_migration_that_fails_leaves_the_old_release_serving_and_is_reported(lodge: Lodge) -> None:
    name = "backend/migrations/versions/0002_audit.py"
    third = MIGRATION.format("DROP TABLE audit; SELECT nothing").replace("0001", "0002", 1).replace("0002", "0003", 1)
    publish(
        lodge.system.folder,
        {name: MIGRATION.format("CREATE TABLE audit (id int)"), "backend/migrations/versions/0003_bad.py": third},
    )
    del lodge.heard[:]
    run = lodge.play("playbooks/deploy.yml", "-e", "app=smart-lodge-api")
    assert run.code != 0 and "goes on serving" in run.output, run.tail
    assert lodge.sql("SELECT version_num, to_regclass('audit') FROM alembic_version") == "0002|audit"
    assert lodge.ask("/me").status == 200
    assert "lodge1: Deploy failed: smart-lodge-api: migrate" in lodge.heard[-1]


def test_backups_are_made_hourly_kept_by_the_plan_and_hold_documents_and_users(lodge: Lodge) -> None:
    configured = 'cat /etc/cron.d/shipshape-backup; python3 -c \'import json; print(json.load(open("{}"))["keep"])\''
    told = lodge.system.ssh(configured.format("/etc/shipshape/backup/config.json"))
    assert "\n10 * * * * root " in told and told.endswith("{'daily': 5, 'monthly': 12, 'weekly': 4}"), told
    uploads, begun = "/var/lib/shipshape/smart-lodge-api/uploads", time.monotonic()
    for playbook, *arguments in (
        ("backup",),
        ("restore", "-e", f"files={uploads}", "-e", "into=/root/restored"),
        ("restore", "-e", "database=smart_lodge_api", "-e", "into=restored"),
    ):
        run = lodge.play(f"playbooks/{playbook}.yml", *arguments)
        assert run.code == 0, run.tail
    # An hour is what the plan allows for the way back.
    assert time.monotonic() - begun < 120
    lodge.system.ssh(f"cmp {uploads}/1 /root/restored{uploads}/1")
    users = "SELECT id, email, password_hash FROM users"
    restored = lodge.system.ssh(f'cd /; runuser -u postgres -- psql -At restored -c "{users}"')
    assert restored == lodge.sql(users) and ADMIN in restored


def test_a_moment_of_the_last_thirty_days_comes_back_and_every_month_that_is_rehearsed(lodge: Lodge) -> None:
    kept = lodge.system.ssh("grep ^repo1-retention /etc/pgbackrest/pgbackrest.conf").splitlines()
    assert kept == ["repo1-retention-full-type=time", "repo1-retention-full=30"]
    lodge.sql("CREATE TABLE mistake AS SELECT 1 AS kept")
    time.sleep(1.1)
    moment = lodge.sql("SELECT now() AT TIME ZONE 'UTC'")
    time.sleep(1.1)
    lodge.sql("DROP TABLE mistake")
    run = lodge.play("playbooks/restore.yml", "-e", f"to='{moment.splitlines()[-1]}'")
    assert run.code == 0, run.tail
    port = "$(grep -Po '^port = \\K.*' /etc/postgresql/*/restored/conf.d/zz-side.conf)"
    beside = f"cd /; runuser -u postgres -- psql -At -p {port} smart_lodge_api -c 'SELECT kept FROM mistake'"
    assert lodge.system.ssh(beside) == "1"
    for name, hour in (("pgbackrest", 4), ("backup", 5)):
        timetable = lodge.system.ssh(f"cat /etc/cron.d/shipshape-{name}")
        assert re.search(rf"^0 {hour} 1 \* \* root .*shipshape-{name} drill ", timetable, re.MULTILINE), timetable
    run = lodge.play("playbooks/drill.yml")
    assert run.code == 0, run.tail
    said = re.search(r"answered queries after ([\d.]+) s; a loss now would cost ([\d.]+) s", run.output)
    assert said and max(map(float, said.groups())) < 3600, run.tail


def test_staging_is_the_same_system_with_settings_of_its_own(lodge: Lodge) -> None:
    overlay = lodge.system.folder / "staging.yml"
    secrets = {**lodge.system.extra, "acme_directory": "https://ca.test/acme/local/directory"}
    unused = ("vault_smart_lodge_s3", "vault_smart_lodge_backup_password")
    variables = {name: value for name, value in secrets.items() if name not in unused}
    overlay.write_text(json.dumps({"all": {"vars": variables}}), encoding="utf-8")

    def seen(inventory: Path, host: str) -> dict[str, Any]:
        command = [str(BIN / "ansible-inventory"), "-i", str(inventory), "-i", str(overlay), "--host", host]
        said = subprocess.run(command, env=system.environment(), capture_output=True, text=True, check=True)
        found: dict[str, Any] = json.loads(said.stdout)
        return found

    ours, theirs = seen(lodge.system.inventory, "lodge1"), seen(STAGING, "lodge-staging1")
    assert ours["apps"] == theirs["apps"] and "backup" not in theirs
    different = ("environment_name", "smart_lodge_domain", "smart_lodge_version", "smart_lodge_pool", "redis")
    assert all(ours[name] != theirs[name] for name in different)
    command = [str(BIN / "ansible-playbook"), "playbooks/validate.yml", "-i", str(STAGING), "-i", str(overlay)]
    checked = subprocess.run(
        command, cwd=PROJECT, env=system.environment(), capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout


def test_one_address_gets_a_thousand_answers_of_the_api_an_hour(lodge: Lodge) -> None:
    # Requests before this one have taken some of the 250 that may come at once.
    command = curl(f"{API}/analysis?[1-300]", "--output", "/dev/null", "--write-out", "%{http_code} ")
    began = time.monotonic()
    answered = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()
    lasted, allowed = time.monotonic() - began, answered.count("200")
    assert set(answered) == {"200", "429"} and len(answered) == 300
    assert 150 < allowed <= 251 + 1 + lasted * 1000 / 3600, f"{allowed} in {lasted:.1f} s"
    refused = lodge.ask("/analysis")
    assert refused.status == 429 and int(refused.headers["retry-after"]) > 0
    # The frontend has no such limit.
    assert {lodge.system.fetch(SITE).status for _ in range(30)} == {200}
