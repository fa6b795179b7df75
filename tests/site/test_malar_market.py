"""System 5, Malar Market, from a bare droplet to its second year, in the order in which an operator meets it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.lab import droplet, repository, settings
from tests.site import sandbox
from tests.site.system import BIN, PROJECT, System, changes, environment

API = "https://api.malar-market-ledger.com"
WEB = "https://malar-market-ledger.com"
CONTAINER = "shipshape-site-malar1"
#: Each alone is a run of its own; `make test` takes those with most before them that they do without.
STAGES = ("hardening", "docker", "database", "proxy", "deploy") if settings.EVERYTHING else ("database", "deploy")
TAGS = (
    ("packages", "hardening", "docker", "postgresql", "nginx", "certbot", "app", "backup")
    if settings.EVERYTHING
    else ("certbot", "app", "backup")
)


def test_check_of_a_bare_droplet_runs_to_the_end_and_changes_nothing(malar: System) -> None:
    before = changes(CONTAINER)
    run = malar.play("site.yml", "--check", "--diff")
    assert run.code == 0, run.tail
    assert run.count("changed") > 10
    assert changes(CONTAINER) == before


def test_one_command_takes_the_bare_droplet_to_production_and_prints_no_secret(malar: System) -> None:
    run = malar.play("site.yml", "-vvvvv", "--diff")
    assert run.code == 0, run.tail
    generated = malar.ssh("cat /etc/shipshape/postgresql/*.password").split()
    assert generated
    for secret in [*malar.secrets.values(), *generated, malar.s3["secret_key"], malar.s3["access_key"]]:
        assert secret not in run.output, f"a secret was printed: …{run.output.partition(secret)[0][-300:]}"


def test_the_end_of_the_run_says_what_an_operator_wants_to_know(malar: System) -> None:
    run = malar.play("site.yml")
    assert run.code == 0, run.tail
    report = run.output[run.output.index("PLAY RECAP") :]
    assert "malar1: nothing changed" in report
    assert f"url          {API}" in report
    assert re.search(r"certificate  malar-api: until \d{4}-\d\d-\d\d \d\d:\d\d UTC \(\d+ days left\)", report)
    assert "backup       none made yet" in report


def test_the_second_run_comes_in_as_the_admin_and_changes_nothing(malar: System) -> None:
    run = malar.play("site.yml", "-v")
    assert run.code == 0, run.tail
    assert run.count("changed") == 0, run.tail
    assert "user: deploy" in run.output or '"user": "deploy"' in run.output


def test_check_after_convergence_foretells_nothing(malar: System) -> None:
    run = malar.play("site.yml", "--check", "--diff")
    assert run.code == 0, run.tail
    assert run.count("changed") == 0, run.tail


@pytest.mark.parametrize("tag", TAGS)
def test_each_tag_works_alone_and_changes_nothing(malar: System, tag: str) -> None:
    run = malar.play("site.yml", "--tags", tag)
    assert run.code == 0, run.tail
    assert run.count("changed") == 0, run.tail


@pytest.mark.parametrize("stage", STAGES)
def test_each_stage_has_a_playbook_that_works_alone(malar: System, stage: str) -> None:
    run = malar.play(f"playbooks/{stage}.yml")
    assert run.code == 0, run.tail
    assert run.count("changed") == 0, run.tail
    assert run.count("ok") > 3


def test_the_api_is_healthy_over_verified_https(malar: System) -> None:
    begin = time.monotonic()
    answer = malar.fetch(f"{API}/health")
    assert time.monotonic() - begin < 0.5
    assert answer.status == 200
    health = answer.json()
    assert health["status"] == "healthy"
    assert health["environment"] == "production"
    assert health["database"] == "ok"
    assert {"timestamp", "version"} <= set(health)
    assert answer.headers["strict-transport-security"].startswith("max-age=31536000")
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_http_and_www_are_redirected(malar: System) -> None:
    assert malar.fetch("http://api.malar-market-ledger.com/health").headers["location"] == f"{API}/health"
    www = malar.fetch("https://www.malar-market-ledger.com/x?y=1")
    assert (www.status, www.headers["location"]) == (301, f"{WEB}/x?y=1")


def test_the_pwa_falls_back_to_its_index_and_is_cached_by_the_rules(malar: System) -> None:
    assert "<html" in malar.fetch(f"{WEB}/farmers/17").body.lower()
    for path in ("/sw.js", "/manifest.json"):
        assert "no-cache" in malar.fetch(f"{WEB}{path}").headers["cache-control"], path
    asset = next(path for path in (settings.EXAMPLE / "frontend/dist/assets").iterdir() if path.suffix == ".js")
    answer = malar.fetch(f"{WEB}/assets/{asset.name}")
    assert "max-age=31536000" in answer.headers["cache-control"]
    assert "immutable" in answer.headers["cache-control"]


def test_the_web_domain_hands_api_on_to_the_api_domain(malar: System) -> None:
    assert malar.fetch(f"{WEB}/api/v1/farmers").json() == malar.fetch(f"{API}/api/v1/farmers").json()


def test_the_websocket_talks_through_the_proxy(malar: System) -> None:
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "c2hpcHNoYXBlIHRlc3QhIQ==",
    }
    options = ["--silent", "--include", "--http1.1", "--max-time", "2", "--cacert", str(settings.CA_CERTIFICATE)]
    options += ["--resolve", f"api.malar-market-ledger.com:443:{malar.hosts['malar1']}"]
    options += [word for name, value in headers.items() for word in ("--header", f"{name}: {value}")]
    # curl waits for the end of the stream, which a WebSocket does not have: the time-out is how it ends.
    output = subprocess.run(["curl", *options, f"{API}/ws"], capture_output=True, check=False).stdout
    assert b"101 Switching Protocols" in output
    assert b'"rates"' in output


def test_the_environment_is_for_the_app_alone_and_complete(malar: System) -> None:
    env = malar.ssh("file=$(readlink -f /srv/malar-api/current)/env; stat -c '%U %a' $file; cut -d= -f1 $file | sort")
    owner, *names = env.splitlines()
    assert owner == "malar-api 600"
    plan = """APP_NAME ENVIRONMENT DEBUG SECRET_KEY DATABASE_URL DATABASE_POOL_SIZE DATABASE_MAX_OVERFLOW REDIS_URL
        JWT_SECRET_KEY JWT_ALGORITHM ACCESS_TOKEN_EXPIRE_MINUTES REFRESH_TOKEN_EXPIRE_DAYS FRONTEND_URL ALLOWED_ORIGINS
        TWILIO_ACCOUNT_SID TWILIO_AUTH_TOKEN TWILIO_WHATSAPP_NUMBER TWILIO_WEBHOOK_URL INTERAKT_API_KEY
        INTERAKT_WEBHOOK_URL SMTP_HOST SMTP_PORT SMTP_USER SMTP_PASSWORD EMAIL_FROM SENTRY_DSN LOG_LEVEL
        RATE_LIMIT_PER_MINUTE RATE_LIMIT_PER_HOUR"""
    assert set(plan.split()) <= set(names)


def test_nothing_but_ssh_and_the_web_answers_from_outside(malar: System) -> None:
    script = PROJECT / "molecule" / "shared" / "open_ports.py"
    found = subprocess.run(
        [BIN / "python", script, malar.hosts["malar1"], "1-30500"], capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == ["22", "80", "443"]


def test_every_service_of_ours_is_shut_in_or_says_why_not(malar: System) -> None:
    there = sandbox.own_services(malar.ssh)
    assert {"shipshape-aide.service", "shipshape-docker-firewall.service", "malar-api@blue.service"} <= set(there)
    assert sandbox.too_open(malar.ssh) == {}


def test_the_certificate_served_is_the_one_on_disk(malar: System) -> None:
    serial = malar.ssh(
        "openssl x509 -in /etc/letsencrypt/live/malar-api/cert.pem -noout -serial\n"
        "openssl s_client -connect 127.0.0.1:443 -servername api.malar-market-ledger.com </dev/null 2>/dev/null"
        " | openssl x509 -noout -serial"
    ).splitlines()
    assert len(serial) == 2
    assert serial[0] == serial[1]


def test_a_deploy_takes_a_new_commit_live_and_a_rollback_takes_it_back(malar: System, tmp_path: Path) -> None:
    before = malar.fetch(f"{API}/health").json()["version"]
    changed = tmp_path / "malar-market"
    shutil.copytree(settings.EXAMPLE, changed)
    package = changed / "backend" / "app" / "__init__.py"
    package.write_text(
        re.sub(r'__version__ = ".*"', '__version__ = "99.0.0"', package.read_text(encoding="utf-8")), encoding="utf-8"
    )
    repository.publish(changed, "malar-market")

    run = malar.play("playbooks/deploy.yml", "-e", "app=malar-api")
    assert run.code == 0, run.tail
    assert malar.fetch(f"{API}/health").json()["version"] == "99.0.0"

    listing = malar.play("playbooks/releases.yml", "-e", "app=malar-api")
    assert listing.code == 0, listing.tail
    assert len(re.findall(r"\d{8}T?-?\d{6}", listing.output)) >= 2

    run = malar.play("playbooks/rollback.yml", "-e", "app=malar-api")
    assert run.code == 0, run.tail
    assert malar.fetch(f"{API}/health").json()["version"] == before
    repository.publish(settings.EXAMPLE, "malar-market")


def test_a_release_that_is_not_healthy_leaves_the_old_one_serving(malar: System, tmp_path: Path) -> None:
    broken = tmp_path / "malar-market"
    shutil.copytree(settings.EXAMPLE, broken)
    main = broken / "backend" / "app" / "main.py"
    main.write_text(main.read_text(encoding="utf-8") + '\nraise SystemExit("broken on purpose")\n', encoding="utf-8")
    repository.publish(broken, "malar-market")
    run = malar.play("playbooks/deploy.yml", "-e", "app=malar-api", "-e", "app_health_timeout=6")
    assert run.code != 0
    assert "malar-api" in run.output
    assert "broken on purpose" in run.output, run.tail
    assert malar.fetch(f"{API}/health").status == 200
    repository.publish(settings.EXAMPLE, "malar-market")
    assert malar.play("site.yml").code == 0


def test_a_backup_restores_to_the_very_rows(malar: System) -> None:
    for number in range(25):
        body = json.dumps(
            {"name": f"Farmer {number} மலர்", "phone": f"+9198765{number:05d}", "village": "Madurai"}
        ).encode()
        answer = malar.fetch(f"{API}/api/v1/farmers", malar.token(), body)
        assert answer.status == 201, answer.body
    backup = malar.play("playbooks/backup.yml")
    assert backup.code == 0, backup.tail
    restored = malar.play("playbooks/restore.yml", "-e", "database=malar_api")
    assert restored.code == 0, restored.tail
    name = malar.ssh(
        "runuser -u postgres -- psql -Atc \"SELECT datname FROM pg_database WHERE datname LIKE 'malar_api_%'\""
    ).split()[-1]
    rows = {
        database: malar.ssh(
            "cd /\n"
            f"runuser -u postgres -- pg_dump --data-only --inserts {database} | grep '^INSERT' | sort | sha256sum\n"
            f"runuser -u postgres -- psql -Atc 'SELECT count(*) FROM farmers' {database}"
        )
        for database in ("malar_api", name)
    }
    assert rows["malar_api"] == rows[name]
    assert rows[name].endswith("\n25")
    assert "backup       20" in malar.play("site.yml").output


@pytest.mark.skipif(not settings.EVERYTHING, reason="the roles' scenarios rehearse; make test-all")
def test_a_rehearsal_restores_dump_and_log_and_says_what_a_loss_would_cost(malar: System) -> None:
    for program, hour in (("pgbackrest", 4), ("backup", 5)):
        timetable = malar.ssh(f"cat /etc/cron.d/shipshape-{program}")
        assert re.search(rf"^0 {hour} 1 \* \* root .*shipshape-{program} drill ", timetable, re.MULTILINE), timetable
    run = malar.play("playbooks/drill.yml")
    assert run.code == 0, run.tail
    by_log = re.search(r"answered queries after ([\d.]+) s; a loss now would cost ([\d.]+) s", run.output)
    assert by_log and max(map(float, by_log.groups())) < 600, run.tail
    report = json.loads(malar.ssh("cat $(ls /var/lib/shipshape/backup/drills/*.json | tail -1)"))
    (dump,) = report["databases"]
    assert report["status"] == "ok" and dump["name"] == "malar_api" and dump["rows"] >= 25, report
    assert malar.ssh("ls /etc/postgresql/*") == "main"


def test_the_bucket_holds_nothing_readable(malar: System) -> None:
    folder = f"/srv/s3/{malar.s3['bucket']}"
    found = subprocess.run(
        ["docker", "exec", settings.SERVICES, "grep", "-rlaE", "Madurai|PGDMP|SECRET_KEY", folder],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 1, found.stdout + found.stderr


def test_after_a_restart_everything_is_up_by_itself(malar: System) -> None:
    droplet.reboot(CONTAINER)
    deadline = time.monotonic() + 30
    while True:
        try:
            answer = malar.fetch(f"{API}/health")
        except AssertionError:
            answer = None
        if (answer and answer.status == 200) or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    assert answer is not None
    assert answer.status == 200
    assert "<html" in malar.fetch(f"{WEB}/").body.lower()
    assert malar.ssh("systemctl --failed --no-legend --plain") == ""
    assert malar.ssh("systemctl is-active ssh ufw fail2ban docker postgresql nginx cron").split() == ["active"] * 7
    # One colour of the app serves, and the other does not come up beside it.
    assert len(malar.ssh("systemctl list-units --plain --no-legend 'malar-api@*'").splitlines()) == 1
    assert "Status: active" in malar.ssh("ufw status")
    assert {"nosuid", "nodev", "noexec"} <= set(malar.ssh("findmnt --noheadings --output OPTIONS /tmp").split(","))
    assert malar.ssh("runuser -u nobody -- ls -d /proc/1 2>&1 || true").endswith("No such file or directory")


def test_the_built_collection_does_the_same_from_an_empty_folder(malar: System, tmp_path: Path) -> None:
    collections, work = tmp_path / "collections", tmp_path / "work"
    work.mkdir()
    config = work / "ansible.cfg"
    config.write_text(
        f"[defaults]\ncollections_path = {collections}\ninterpreter_python = /usr/bin/python3\n"
        "[ssh_connection]\npipelining = true\n",
        encoding="utf-8",
    )
    stranger = {**environment(), "ANSIBLE_CONFIG": str(config)}
    galaxy = (str(BIN / "ansible-galaxy"), "collection")
    subprocess.run([*galaxy, "build", "--output-path", str(tmp_path)], cwd=PROJECT, env=stranger, check=True)
    archive = next(tmp_path.glob("shipshape-droplet-*.tar.gz"))
    subprocess.run([*galaxy, "install", "-p", str(collections), str(archive)], cwd=work, env=stranger, check=True)
    role = work / "postgresql.yml"
    role.write_text("- hosts: all\n  become: true\n  roles: [shipshape.droplet.postgresql]\n", encoding="utf-8")
    for playbook, arguments in (("shipshape.droplet.site", []), (str(role), ["--check", "-u", "deploy"])):
        result = subprocess.run(
            malar.command(playbook, *arguments), cwd=work, env=stranger,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
        assert re.search(r"malar1 +: ok=\d+ ", result.stdout)
    assert not [
        name
        for name in os.listdir(collections / "ansible_collections/shipshape/droplet")
        if name in (".lab", ".venv", ".git")
    ]
