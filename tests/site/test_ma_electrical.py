"""System 3 from its inventory: photos into the bucket, an old host's data brought in, a clean-up that is safe.

The tests build on each other, in this order.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import repository, settings
from tests.site import system
from tests.site.system import PROJECT, Run, System

pytestmark = pytest.mark.skipif(not settings.EVERYTHING, reason="some minutes of packages alone: make test-all")

HOSTS = {"electrical1": "10.77.0.76"}
DOMAIN = "inventory.ma-electrical.com"
SITE = f"https://{DOMAIN}"
EXAMPLE = PROJECT / "examples" / "ma-electrical"
#: What an operator would type, and what bcrypt makes of it (12 rounds).
PASSWORD, HASH = "correct horse battery", "$2b$12$D82dMATo5YOrRuW6fnySce/yMt.PAO0dQ3BmFM/QJ7cMdf0w5zaDW"
OLD_PASSWORD, OLD_HASH = "the old host's word", "$2b$12$034ZzL70b6HraJBg6SSYQuiw/PwybNB0wL0qaPTz66yZHBdPsAqhi"
UPLOADS = "/var/lib/shipshape/ma-electrical/uploads"


def make_bucket(keys: dict[str, str], name: str) -> None:
    """As the plan does by hand."""
    said = {
        "url": f"{keys['endpoint']}/{name}",
        "request": "PUT",
        "aws-sigv4": "aws:amz:us-east-1:s3",
        "user": f"{keys['access_key']}:{keys['secret_key']}",
        "cacert": str(settings.CA_CERTIFICATE),
        "resolve": f"{keys['endpoint'].removeprefix('https://')}:443:{settings.SERVICES_ADDRESS}",
    }
    lines = "".join(f'{key} = "{value}"\n' for key, value in said.items())
    subprocess.run(["curl", "--fail", "--silent", "--config", "-"], input=lines, text=True, check=True, timeout=60)


@pytest.fixture(scope="module")
def electrical(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    system.start("electrical", HOSTS, (DOMAIN,))
    repository.publish(EXAMPLE, "ma-electrical")
    s3 = system.bucket("shipshape-electrical")
    photos = f"{s3['bucket']}-photos"
    make_bucket(s3, photos)
    folder = tmp_path_factory.mktemp("electrical")
    given = System(PROJECT / "inventories" / "ma-electrical", HOSTS, folder, s3, (DOMAIN,))
    given.extra = {
        "ma_electrical_repository": "https://git.test/ma-electrical.git",
        "vault_ma_electrical_admin_key": settings.SSH_KEY.with_suffix(".pub").read_text(encoding="utf-8").strip(),
        "vault_ma_electrical_secret_key": given.secret("electrical_secret"),
        "vault_ma_electrical_admin_hash": HASH,
        "vault_ma_electrical_backup_password": given.secret("electrical_backup"),
        "vault_ma_electrical_photos_bucket": photos,
        "vault_ma_electrical_s3": s3,
        "app_watch_seconds": 2,
    }
    yield given
    system.stop("electrical", HOSTS)


def sql(electrical: System, query: str, database: str = "ma_electrical") -> str:
    return electrical.ssh(f"cd /\nrunuser -u postgres -- psql -At {database} <<'END'\n{query}\nEND")


def logged_in(electrical: System, password: str) -> dict[str, str]:
    """The header of the admin's session; none where the password is wrong."""
    body = json.dumps({"username": "admin", "password": password}).encode()
    answer = electrical.fetch(f"{SITE}/api/auth/login", {"Content-Type": "application/json"}, body)
    return {"Authorization": f"Bearer {answer.json()['token']}"} if answer.status == 200 else {}


def databases(electrical: System) -> str:
    return sql(electrical, "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database WHERE datname ~ '^ma_'")


def imported(electrical: System, *arguments: str) -> Run:
    return electrical.play("playbooks/import.yml", "-e", "app=ma-electrical", *arguments)


def test_it_comes_up_from_its_inventory_and_a_second_run_changes_nothing(electrical: System) -> None:
    run = electrical.play("site.yml", "--diff")
    assert run.code == 0, run.tail
    for secret in (*electrical.secrets.values(), electrical.s3["secret_key"], HASH):
        assert secret not in run.output
    assert electrical.fetch(f"{SITE}/health").json() == {"status": "healthy"}
    # What a team changes by hand is nobody else's business from then on.
    sql(electrical, "UPDATE users SET full_name = 'Maria'; INSERT INTO work_orders (customer) VALUES ('Smith')")
    again = electrical.play("site.yml", "--diff")
    assert (again.code, again.count("changed")) == (0, 0), again.tail
    assert sql(electrical, "SELECT username, full_name, password FROM users") == f"admin|Maria|{HASH}"
    comment = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = 'ma_electrical'"
    assert "schema_v3_final.sql" in sql(electrical, comment)


def test_the_droplet_is_as_the_plan_wants_it(electrical: System) -> None:
    groups, root, bans, *rest = electrical.ssh(
        "id -nG deploy; sshd -T | grep -i ^permitrootlogin; systemctl is-active fail2ban\n"
        "ufw status | awk '/ALLOW/ {print $1}' | sort -u; cat /etc/cron.d/shipshape-*"
    ).splitlines()
    assert {"sudo", "docker"} <= set(groups.split())
    assert (root, bans) == ("permitrootlogin no", "active")
    assert {line.removesuffix("/tcp") for line in rest if re.match(r"\d+/tcp$", line)} == {"22", "80", "443"}
    timetable = "\n".join(rest)
    for when, what in (("0 2 * * *", "backup"), ("0 0,12 * * *", "certbot renew"), ("0 3 * * 0", "docker-cleanup")):
        assert re.search(rf"^{re.escape(when)} root .*{what}", timetable, re.MULTILINE), timetable
    # As the admin, without sudo.
    assert electrical.ssh("runuser -u deploy -- docker info --format '{{.ServerVersion}}'")


def test_a_renewed_certificate_is_served_at_once(electrical: System) -> None:
    shown = f"openssl s_client -connect 127.0.0.1:443 -servername {DOMAIN} </dev/null 2>/dev/null"
    served = f"{shown} | openssl x509 -noout -serial"
    before = electrical.ssh(served)
    electrical.ssh("certbot renew --quiet --non-interactive --force-renewal --no-random-sleep-on-renew")
    wait = f"for _ in 1 2 3 4 5 6 7 8; do now=$({served}); [ $now = {before} ] || break; sleep 0.5; done; echo $now"
    assert electrical.ssh(wait) not in ("", before)


def test_photos_of_more_than_ten_megabytes_go_to_the_bucket_and_only_who_has_logged_in_sees_them(
    electrical: System,
) -> None:
    session = logged_in(electrical, PASSWORD)
    assert session and not logged_in(electrical, "wrong")
    order = electrical.fetch(f"{SITE}/api/work-orders", session).json()[0]["id"]
    content = b"A photo of a panel. " * 600_000
    # Without asking first, as a phone sends it.
    answer = electrical.fetch(f"{SITE}/api/work-orders/{order}/photos", {**session, "Expect": ""}, content)
    assert (answer.status, answer.json()["bytes"]) == (200, 12_000_000), answer.body
    photo = f"{SITE}/api/photos/{answer.json()['id']}"
    assert electrical.fetch(photo, session).body.encode() == content
    assert electrical.fetch(photo).status == 401
    assert electrical.fetch(f"{SITE}/api/work-orders/{order}/photos", {}, b"x").status == 401
    assert electrical.fetch(f"{SITE}/api/work-orders/{order}/photos", session, bytes(51 * 1024 * 1024)).status == 413
    # Nothing of it lies on the droplet.
    assert electrical.ssh(f"find {UPLOADS} -type f | wc -l") == "0"


def test_limits_headers_and_files_that_are_nobodys_business(electrical: System) -> None:
    headers = electrical.fetch(f"{SITE}/health").headers
    for name in ("strict-transport-security", "x-content-type-options", "x-frame-options", "referrer-policy"):
        assert name in headers
    assert electrical.fetch(f"http://{DOMAIN}/").status in (301, 308)
    for path in (".env", ".git/config", "app/main.py", "environment", "uploads/"):
        assert electrical.fetch(f"{SITE}/{path}").status in (403, 404)
    assert [electrical.fetch(f"{SITE}/api/auth/login", {}, b"{}").status for _ in range(15)][-1] == 429


def test_the_clean_up_takes_what_is_old_and_never_a_volume_or_what_a_release_needs(electrical: System) -> None:
    said = electrical.ssh(
        "image() { tar --create --dereference --absolute-names /bin/true $(ldd /bin/true | grep -o '/[^ ]*')"
        " | docker import - $1; }\n"
        "for name in tool:1 used:1 board:shipshape-board-20261101T030000-abc; do image $name >/dev/null; done\n"
        "docker volume create photos >/dev/null\n"
        "docker run --name ended --volume data:/data tool:1 /bin/true\n"
        "docker create --name waiting used:1 /bin/true >/dev/null\n"
        "shipshape-docker-cleanup\n"  # all of it is younger than a week
        "docker image ls --format '{{.Repository}}' | sort | xargs\nsleep 1.1\n"
        "shipshape-docker-cleanup --days 0\n"
        "docker image ls --format '{{.Repository}}' | sort | xargs\n"
        "docker container ls --all --format '{{.Names}}'\ndocker volume ls --format '{{.Name}}' | sort | xargs\n"
        "{ docker rm waiting; docker volume rm photos data; docker image rm $(docker image ls --quiet); } >/dev/null"
    ).splitlines()
    assert said[0].startswith("removed 0 containers and 0 images")
    assert said[1] == "board tool used"
    assert said[2].startswith("removed 1 containers and 1 images")
    assert said[3:] == ["board used", "waiting", "data photos"]


def test_a_backup_is_made_and_restored_beside(electrical: System) -> None:
    config = json.loads(electrical.ssh("cat /etc/shipshape/backup/config.json"))
    assert config["keep"] == {"daily": 30, "weekly": 0, "monthly": 0} and config["databases"] == ["ma_electrical"]
    run = electrical.play("playbooks/backup.yml")
    assert run.code == 0, run.tail
    restored = electrical.play("playbooks/restore.yml", "-e", "database=ma_electrical")
    assert restored.code == 0, restored.tail
    everything = "SELECT (SELECT count(*) FROM users), (SELECT sum(bytes) FROM photos)"
    assert sql(electrical, everything, "ma_electrical_restored") == sql(electrical, everything) == "1|12000000"
    electrical.ssh("cd /; runuser -u postgres -- dropdb ma_electrical_restored")


def test_every_month_the_newest_backup_is_restored_and_compared(electrical: System) -> None:
    timetable = electrical.ssh("cat /etc/cron.d/shipshape-backup")
    assert re.search(r"^0 5 1 \* \* root .*shipshape-backup drill ", timetable, re.MULTILINE), timetable
    run = electrical.play("playbooks/drill.yml")
    assert run.code == 0, run.tail
    assert re.search(r"database ma_electrical of \S+: [1-9]\d* tables with [1-9]\d* rows, loaded from", run.output)
    assert re.search(r"files of \S+: ([1-9]\d*) restored, \1 of them the same as those that live", run.output), run.tail
    report = json.loads(electrical.ssh("cat $(ls /var/lib/shipshape/backup/drills/*.json | tail -1)"))
    assert report["status"] == "ok" and report["failures"] == []


@pytest.fixture(scope="module")
def old_host(electrical: System) -> dict[str, Path]:
    """What the old host leaves: a dump with an owner that nobody knows here, and a tarball of its uploads."""
    schema = (EXAMPLE / "database" / "schema_v3_final.sql").read_text(encoding="utf-8")
    rows = f"""
INSERT INTO users (username, full_name, password, role) VALUES ('admin', 'Old Admin', '{OLD_HASH}', 'admin');
INSERT INTO work_orders (customer) VALUES ('Jones');
INSERT INTO photos (work_order_id, path, bytes) VALUES (1, 'uploads/work_orders/1/panel.jpg', 5);
"""
    sql(electrical, "CREATE ROLE oldhost LOGIN; CREATE DATABASE oldhost OWNER oldhost", "postgres")
    sql(electrical, f"SET SESSION AUTHORIZATION oldhost;\n{schema}\n{rows}", "oldhost")
    dump = electrical.ssh("cd /; runuser -u postgres -- pg_dump oldhost") + "\n"
    assert "OWNER TO oldhost" in dump
    sql(electrical, "DROP DATABASE oldhost", "postgres")
    sql(electrical, "DROP ROLE oldhost", "postgres")
    found = {name: electrical.folder / name for name in ("backup.sql", "cut.sql", "photos.tar.gz", "cut.tar.gz")}
    found["backup.sql"].write_text(dump, encoding="utf-8")
    found["cut.sql"].write_text(dump[: dump.index("PRIMARY KEY")], encoding="utf-8")
    with tarfile.open(found["photos.tar.gz"], "w:gz") as tar:
        member = tarfile.TarInfo("backend/uploads/work_orders/1/panel.jpg")
        member.size = 5
        tar.addfile(member, io.BytesIO(b"panel"))
    found["cut.tar.gz"].write_bytes(found["photos.tar.gz"].read_bytes()[:-12])
    return found


def test_what_is_cut_off_is_refused_by_name_and_leaves_nothing(electrical: System, old_host: dict[str, Path]) -> None:
    run = imported(electrical, "-e", f"dump={old_host['cut.sql']}", "-e", "replace=true")
    assert run.code != 0
    assert "cut.sql was not imported, and database ma_electrical is as it was: it is cut off" in run.output, run.tail
    both = ("-e", f"dump={old_host['backup.sql']}", "-e", f"files={old_host['cut.tar.gz']}", "-e", "replace=true")
    run = imported(electrical, *both)
    assert run.code != 0
    assert "cut.tar.gz was not imported, and nothing was changed: it is cut off" in run.output, run.tail
    assert databases(electrical) == "ma_electrical"
    assert sql(electrical, "SELECT customer FROM work_orders") == "Smith"
    assert electrical.ssh("ls /var/lib/shipshape/postgresql; find /var/lib/shipshape -name '*import*'") == ""


def test_a_dump_goes_beside_a_database_that_has_data(electrical: System, old_host: dict[str, Path]) -> None:
    run = imported(electrical, "-e", f"dump={old_host['backup.sql']}")
    assert run.code == 0, run.tail
    assert re.search(r"backup.sql is now database ma_electrical_import: 3 tables, \d+ bytes, in [\d.]+ s", run.output)
    assert "-e replace=true puts the import in its place" in run.output
    assert sql(electrical, "SELECT customer FROM work_orders", "ma_electrical_import") == "Jones"
    assert sql(electrical, "SELECT customer FROM work_orders") == "Smith"
    electrical.ssh("cd /; runuser -u postgres -- dropdb ma_electrical_import")


def test_the_old_hosts_data_and_photos_take_the_place_of_what_is_kept(
    electrical: System, old_host: dict[str, Path]
) -> None:
    both = ("-e", f"dump={old_host['backup.sql']}", "-e", f"files={old_host['photos.tar.gz']}")
    run = imported(electrical, *both, "-e", "replace=true")
    assert run.code == 0, run.tail
    assert re.search(r"backup.sql is now database ma_electrical: 3 tables, \d+ bytes, in [\d.]+ s", run.output), (
        run.tail
    )
    assert re.search(rf"photos.tar.gz is now in {UPLOADS}: 1 files, 5 bytes, in [\d.]+ s", run.output), run.tail
    live, former = databases(electrical).split()
    assert live == "ma_electrical" and former.startswith("ma_electrical_before_")
    assert sql(electrical, "SELECT customer FROM work_orders", former) == "Smith"
    again = imported(electrical, *both)
    assert (again.code, again.count("changed")) == (0, 0), again.tail
    # The app works with it: the old password, and the photo, which its own script takes to the bucket.
    electrical.ssh("systemctl start ma-electrical.photos.service")
    session = logged_in(electrical, OLD_PASSWORD) or pytest.fail("the old password is refused")
    assert electrical.fetch(f"{SITE}/api/work-orders", session).json() == [
        {"id": 1, "customer": "Jones", "photos": [1]}
    ]
    assert electrical.fetch(f"{SITE}/api/photos/1", session).body == "panel"


def test_without_a_domain_it_answers_at_its_address_with_a_certificate_of_its_own(
    electrical: System, tmp_path: Path
) -> None:
    address = HOSTS["electrical1"]
    bare = System(PROJECT / "inventories" / "ma-electrical-ip", HOSTS, tmp_path, electrical.s3)
    bare.extra = {**electrical.extra, "ma_electrical_site": address}
    run = bare.play("playbooks/proxy.yml")
    assert run.code == 0, run.tail
    asked = [
        "curl",
        "--silent",
        "--insecure",
        "--write-out",
        " %{http_code} %{ssl_verify_result}",
        f"https://{address}/health",
    ]
    answer = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=30).stdout
    assert answer.startswith('{"status":"healthy"} 200') and not answer.endswith(" 0")
    assert bare.play("playbooks/proxy.yml").count("changed") == 0
