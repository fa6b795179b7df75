"""Releases of an app that is an image: the scripts that start it, its environment, and which images may go."""

from __future__ import annotations

import base64
import json
import os
import stat
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.shipshape.droplet.plugins.filter.app_specs import app_registries, app_specs, app_units
from ansible_collections.shipshape.droplet.plugins.module_utils import (
    app_container,
    app_env,
    app_ground,
    app_hook,
    app_process,
    app_service,
    app_store,
)
from ansible_collections.shipshape.droplet.plugins.module_utils.app_registry import Login, image_of
from ansible_collections.shipshape.droplet.plugins.module_utils.app_system import AppError
from ansible_collections.shipshape.droplet.plugins.modules import app_info, app_release

from tests.unit.app_tools import be_the_app_user, store_with

A, B = "20260101T000000Z-aaaaaaa", "20260102T000000Z-bbbbbbb"
OLD, NEW = "a" * 64, "b" * 64

#: A docker that writes down how it was called and has what the test says. What is attached to ends.
DOCKER = """#!/bin/sh
for word in "$@"; do printf '%s\\n' "$word"; done >>"$FAKE/called"
echo -- >>"$FAKE/called"
env >"$FAKE/environment"
case "$1" in
    ps) case "$*" in *status=running*) cat "$FAKE/running" ;; *) cat "$FAKE/there" ;; esac ;;
    attach) : >"$FAKE/running" ;;
    image) [ "$2" = ls ] && cat "$FAKE/images" ;;
    inspect) cat "$FAKE/process" ;;
esac
exit 0
"""


@pytest.fixture(autouse=True)
def anybody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    be_the_app_user(monkeypatch)
    monkeypatch.setattr(app_container, "STATE", str(tmp_path / "state"))
    monkeypatch.setattr(app_container, "LOGINS", str(tmp_path / "logins"))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A `docker` in front of the path."""
    folder = tmp_path / "fake"
    folder.mkdir()
    for name in ("running", "there", "images", "process", "called"):
        (folder / name).write_text("")
    (folder / "docker").write_text(DOCKER)
    (folder / "docker").chmod(0o755)
    monkeypatch.setenv("FAKE", str(folder))
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def calls(fake: Path) -> list[list[str]]:
    return [call.splitlines() for call in (fake / "called").read_text().split("--\n") if call]


def spec(**changes: Any) -> dict[str, Any]:
    row = {
        "name": "ocr",
        "type": "container",
        "image": "r.test:5000/ocr:1.4",
        "container_port": 8000,
        "port": 20010,
        "second_port": 20011,
        "migrate": "alembic upgrade head",
        "env": {"A": "1"},
        **changes,
    }
    return dict(app_specs([row])["ocr"])


def start(app: dict[str, Any], fake: Path, *words: str, env: dict[str, str] | None = None,
          script: str = app_container.START) -> list[list[str]]:  # fmt: skip
    """Run a script of a release; returns how it called docker, but for its looking afterwards whether it still runs."""
    files = app_container.scripts(app, A, OLD, "/srv/ocr/releases/" + A, env or {"A": "1"})
    (fake / "script").write_text(files[script])
    subprocess.run(["sh", str(fake / "script"), *words], check=True, timeout=60)
    found = calls(fake)
    return found[: 1 + max(index for index, call in enumerate(found) if call[0] in ("run", "attach"))]


def test_a_container_is_published_where_its_colour_listens_and_has_no_rights(fake: Path) -> None:
    *_before, run = start(spec(), fake, "blue", "127.0.0.1:20010")
    assert run[:2] == ["run", "--name=ocr-blue"] and "--label=shipshape.colour=blue" in run
    assert {"--init", "--pull=never", "--cap-drop=ALL", "--security-opt=no-new-privileges"} <= set(run)
    assert run[-2:] == ["--publish=127.0.0.1:20010:8000", f"r.test:5000/ocr@sha256:{OLD}"]


@pytest.mark.parametrize(("script", "past"), [("migrate", True), ("hook.before_start", False)])
def test_a_migration_goes_past_the_pooler_and_shows_nobody_its_url(fake: Path, script: str, past: bool) -> None:
    app = spec(hooks={"before_start": "./warm"})
    env = {"DATABASE_URL": "postgresql://o:p@/o?port=6432", "DIRECT_DATABASE_URL": "postgresql://o:p@/o"}
    *_before, run = start(app, fake, env=env, script=script)
    assert ("--env=DATABASE_URL" in run) is past and not [word for word in run if "o:p" in word]
    text = app_container.scripts(app, A, OLD, "/x", env)[script]
    assert ("export DATABASE_URL=postgresql://o:p@/o\n" in text) is past


def test_a_container_without_a_port_publishes_none(fake: Path) -> None:
    *_before, run = start(spec(container_port=None), fake, "green", "127.0.0.1:20011")
    assert not [word for word in run if "publish" in word]


def test_arguments_stand_in_for_the_image_s_own_command(fake: Path) -> None:
    *_before, run = start(spec(command="serve --title 'two words' $HOME"), fake, "blue")
    assert run[-4:] == ["serve", "--title", "two words", "$HOME"]


def test_limits_rights_and_volumes_are_the_declared_ones(fake: Path) -> None:
    app = spec(
        memory="512M",
        cpus=1.5,
        capabilities=["CHOWN"],
        volumes={"/data": "uploads"},
        sockets=["/var/run/postgresql"],
    )
    *_before, run = start(app, fake, "blue")
    assert {"--memory=512M", "--cpus=1.5", "--cap-add=CHOWN"} <= set(run)
    mounts = [word for word in run if word.startswith("--mount")]
    assert mounts[0].startswith("--mount=type=volume,source=shipshape-ocr-uploads,target=/data,")
    assert mounts[0].endswith(f"volume-opt=device={app_container.STATE}/ocr/uploads")
    assert mounts[1] == "--mount=type=bind,source=/var/run/postgresql,target=/var/run/postgresql"


def test_what_runs_already_is_gone_on_with(fake: Path) -> None:
    (fake / "running").write_text("c0ffee\n")
    assert start(spec(), fake, "blue")[-1] == ["attach", "--no-stdin", "ocr-blue"]


def test_what_is_left_of_another_release_makes_room(fake: Path) -> None:
    (fake / "there").write_text("c0ffee\n")
    *_before, remove, run = start(spec(), fake, "blue")
    assert remove == ["rm", "--force", "--volumes", "c0ffee"]
    assert run[0] == "run"
    # Only a container of this app is looked for: one that merely has the name is not ours to remove.
    assert "label=shipshape.app=ocr" in calls(fake)[1]


def test_no_value_of_the_environment_stands_in_an_argument(fake: Path) -> None:
    nasty = {"PLAIN": "a 'q' \"d\" $HOME `id` \\ # %", "LINES": "first\n  sec'ond", "EMPTY": ""}
    *_before, run = start(spec(), fake, "blue", env=nasty)
    assert not [word for word in run if "first" in word or "`id`" in word]
    assert f"--env-file=/srv/ocr/releases/{A}/container.env" in run and "--env=LINES" in run
    # What has several lines no file of variables can hold: the client has it in its own environment.
    assert "LINES=first\n  sec'ond\n" in (fake / "environment").read_text()
    files = app_container.scripts(spec(), A, OLD, "/x", nasty)
    assert files[app_container.VARIABLES] == "EMPTY=\nPLAIN=" + nasty["PLAIN"] + "\n"


#: An app with one of each thing that may run beside the container that answers requests.
WHOLE: dict[str, Any] = {
    "seed": "python -m app.seed",
    "hooks": {"before_start": "python -m app.check"},
    "memory": "512M",
    "processes": [
        {"name": "worker", "command": "celery -A app worker", "count": 2, "stop_timeout": 300, "memory": "1G"},
        {"name": "beat", "command": "celery -A app beat", "cpus": 0.5},
    ],
    "cron": [{"name": "cleanup", "schedule": "0 3 * * *", "command": "python -m 'app.clean up'"}],
}


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("migrate", ["alembic", "upgrade", "head"]),
        ("seed", ["python", "-m", "app.seed"]),
        ("hook.before_start", ["python", "-m", "app.check"]),
        ("cron.cleanup", ["python", "-m", "app.clean up"]),
    ],
)
def test_what_comes_to_its_end_runs_in_the_release_s_image_without_a_port(
    fake: Path, script: str, words: list[str]
) -> None:
    *_before, run = start(spec(**WHOLE), fake, script=script)
    assert run[:2] == ["run", f"--name=ocr-{script}"] and {"--rm", "--label=shipshape.app=ocr"} <= set(run)
    assert run[-len(words) - 1 :] == [f"r.test:5000/ocr@sha256:{OLD}", *words]
    assert not [word for word in run if "publish" in word or "colour" in word]
    assert script not in app_container.scripts(spec(migrate=""), A, OLD, "/x", {})


@pytest.mark.parametrize("script", ["cron.cleanup", "migrate"])
def test_what_comes_to_its_end_never_runs_twice_at_once(fake: Path, script: str) -> None:
    (fake / "running").write_text("c0ffee\n")
    assert start(spec(**WHOLE), fake, script=script)[-1] == ["attach", "--no-stdin", f"ocr-{script}"]
    # Also when it is another release's that still runs.
    assert not [word for call in calls(fake) for word in call if "shipshape.release" in word]


def test_a_process_runs_in_a_container_of_its_own_without_a_port(fake: Path) -> None:
    *_before, run = start(spec(**WHOLE), fake, "green", script="process.worker")
    assert run[1] == "--name=ocr.worker-green"
    assert run[-5:] == [f"r.test:5000/ocr@sha256:{OLD}", "celery", "-A", "app", "worker"]
    labels = {"--label=shipshape.app=ocr", f"--label=shipshape.release={A}", "--label=shipshape.colour=green"}
    assert labels <= set(run) and not [word for word in run if "publish" in word]
    *_before, second = start(spec(**WHOLE), fake, "green", "2", script="process.worker")
    assert second[1] == "--name=ocr.worker-2-green"


def test_a_process_has_its_own_limits_and_else_the_app_s(fake: Path) -> None:
    *_before, worker = start(spec(**WHOLE), fake, "blue", script="process.worker")
    *_before, beat = start(spec(**WHOLE), fake, "blue", script="process.beat")
    assert "--memory=1G" in worker and not [word for word in worker if "cpus" in word]
    assert {"--memory=512M", "--cpus=0.5"} <= set(beat)


def test_an_engine_that_starts_anew_is_waited_for_and_the_same_container_gone_on_with(fake: Path) -> None:
    # The client is cut off; then no engine answers for a moment; then the container is found to run on.
    (fake / "docker").write_text(
        """#!/bin/sh
echo "$1" >>"$FAKE/words"
looks=$(grep -c ps "$FAKE/words")
case "$1" in
    run) exit 125 ;;
    attach) exit 7 ;;
    ps) case "$looks" in 3) exit 1 ;; 4) echo c0ffee ;; esac ;;
esac
"""
    )
    files = app_container.scripts(spec(), A, OLD, "/x", {})
    (fake / "script").write_text(files[app_container.START])
    done = subprocess.run(["sh", str(fake / "script"), "blue"], check=False, timeout=60)
    # It ends as the container has, not as the client that was cut off.
    assert done.returncode == 7
    assert (fake / "words").read_text().split() == ["ps", "ps", "run", "ps", "ps", "attach", "ps"]


def test_a_container_that_ends_ends_its_unit_as_it_has_ended(fake: Path) -> None:
    (fake / "docker").write_text('#!/bin/sh\n[ "$1" != run ] || exit 3\n')
    files = app_container.scripts(spec(), A, OLD, "/x", {})
    (fake / "script").write_text(files[app_container.START])
    assert subprocess.run(["sh", str(fake / "script"), "blue"], check=False, timeout=60).returncode == 3


def test_a_release_is_root_s_alone(fake: Path, tmp_path: Path) -> None:
    app_container.build(spec(volumes={"/data": "data"}), A, str(tmp_path), OLD, {"SECRET": "x"}, Login(), None)
    modes = {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("container", "container.env")}
    assert modes == {"container": 0o700, "container.env": 0o600}
    assert stat.S_IMODE((tmp_path / "state/ocr").stat().st_mode) == 0o700 and (tmp_path / "state/ocr/data").is_dir()


@pytest.mark.parametrize("script", ["migrate", "seed", "hook.after_migrate"])
def test_what_a_killed_run_has_left_is_brought_to_its_end_first(fake: Path, tmp_path: Path, script: str) -> None:
    (fake / "there").write_text("c0ffee\n")
    (tmp_path / script).write_text("#!/bin/sh\ndocker run; echo done; exit 3\n")
    (tmp_path / script).chmod(0o700)
    assert app_container.run_once("ocr", str(tmp_path), script, 60, None) == (3, "done")
    assert calls(fake)[1:] == [["wait", f"ocr-{script}"], ["run"]]


def test_a_hook_of_an_image_is_its_release_s_and_says_no_secret(fake: Path, tmp_path: Path) -> None:
    hooks = {"after_start": "check it"}
    store_with(tmp_path / "ocr", {"id": A, "hooks": hooks}, current=A)
    release = app_store.Store("ocr", str(tmp_path / "ocr")).find(A)
    Path(release.path, "env").write_text(app_env.to_file({"SECRET": "s3cret-value-99"}))
    Path(release.path, "hook.after_start").write_text("#!/bin/sh\necho no: s3cret-value-99; exit 4\n")
    Path(release.path, "hook.after_start").chmod(0o700)
    said = app_hook.run(spec(hooks=hooks), release, "after_start")
    assert said.startswith("hook after_start `check it` failed (exit 4)") and "s3cret" not in said and "no: " in said
    assert app_hook.run(spec(hooks=hooks), release, "before_start") == ""


def test_sql_is_taken_out_of_the_image_and_read_by_whoever_applies_it(fake: Path, tmp_path: Path) -> None:
    (fake / "docker").write_text(
        """#!/bin/sh
echo "$@" >>"$FAKE/words"
[ "$1" = cp ] || exit 0
[ "$2" = ocr-sql:/app/migrations ] && mkdir "$3" && echo x >"$3/001.sql" && chmod 600 "$3/001.sql"
"""
    )
    target = tmp_path / "sql"
    app_container.copy_sql("ocr", "r.test/ocr:1", "/app/migrations", str(target))
    assert stat.S_IMODE(target.stat().st_mode) == 0o755 and stat.S_IMODE((target / "001.sql").stat().st_mode) == 0o644
    said = (fake / "words").read_text().splitlines()
    # What a killed run has left goes first; nothing of it is left afterwards, and nothing was started.
    assert [line.split()[0] for line in said] == ["rm", "create", "cp", "rm"]
    assert said[0] == said[-1] == "rm --force --volumes ocr-sql"
    assert said[1].startswith("create --pull=never --name=ocr-sql")
    with pytest.raises(AppError, match=r"r.test/ocr:1 has no folder /srv/none, as `migrate.sql` says it has"):
        app_container.copy_sql("ocr", "r.test/ocr:1", "/srv/none", str(tmp_path / "other"))


def test_sql_of_an_image_is_no_way_into_the_droplet(fake: Path, tmp_path: Path) -> None:
    (fake / "docker").write_text('#!/bin/sh\n[ "$1" != cp ] || { mkdir "$3" && ln -s /etc/shadow "$3/001.sql"; }\n')
    with pytest.raises(AppError, match=r"/app/sql/001.sql in r.test/ocr:1 is a link"):
        app_container.copy_sql("ocr", "r.test/ocr:1", "/app/sql", str(tmp_path / "sql"))


def test_sql_of_an_image_is_applied_by_a_user_of_its_own_who_sees_nothing_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = store_with(tmp_path / "ocr", {"id": A}, current=A)
    release = store.find(A)
    Path(release.path, "env").write_text("")
    Path(release.path, "sql").mkdir()
    seen: list[list[str]] = []
    monkeypatch.setattr(app_container, "SQL_SEEN_AT", str(tmp_path / "seen"))
    monkeypatch.setattr(app_service, "wait_for_end", lambda *_: None)

    def run(_account: None, command: list[str], **_: Any) -> tuple[int, str]:
        seen.append(command)
        return 0, ""

    monkeypatch.setattr(app_service, "run", run)
    for script in ("migrate", "unmigrate"):
        assert app_hook.run_script(spec(), release, script, 60, None) == (0, "")
    up, down = seen
    assert up[-5:] == ["python3", app_container.SQL_PROGRAM, "up", ".", A] and down[-2:] == ["down", "."]
    properties = {word.partition("--property=")[2] for word in up}
    assert {"DynamicUser=yes", "NoNewPrivileges=yes", f"EnvironmentFile={release.path}/env"} <= properties
    assert f"BindReadOnlyPaths={release.path}/sql:{tmp_path}/seen" in properties
    assert not [value for value in properties if value.startswith("User=")]


def test_a_migration_that_takes_too_long_is_ended(fake: Path, tmp_path: Path) -> None:
    (tmp_path / "migrate").write_text("#!/bin/sh\nexec sleep 20\n")
    (tmp_path / "migrate").chmod(0o700)
    code, said = app_container.run_once("ocr", str(tmp_path), "migrate", 1, None)
    assert code == 124 and "no end after 1 seconds" in said
    assert calls(fake)[-1] == ["rm", "--force", "--volumes", "ocr-migrate"]


def test_passwords_of_registries_are_kept_out_of_what_a_module_says() -> None:
    module: Any = SimpleNamespace(no_log_values=set())
    sealed = app_registries([{"name": "a", "registry": {"username": "u", "password": "p4ss"}}])
    assert app_container.logins(module, sealed) == {"a": Login("u", "p4ss")}
    assert module.no_log_values == {"p4ss", Login("u", "p4ss").basic}


def refuse(fake: Path, said: str) -> str:
    """What is said of a pull that fails with those words."""
    (fake / "docker").write_text(f"""#!/bin/sh
cat "$2/config.json" >"$FAKE/login" 2>/dev/null
echo "$@" >>"$FAKE/called"
echo '{said}' >&2; exit 1
""")
    with pytest.raises(AppError) as error:
        app_container.pull("ocr", A, "r.test/ocr", OLD, Login("fetcher", "s3cret-of-mine"), None)
    return str(error.value)


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("unauthorized: authentication required", "refuses r.test/ocr@sha256:aaa"),
        ("manifest unknown: manifest unknown", "r.test has no such image any more"),
        ("Cannot connect to the Docker daemon at unix:///x", "systemctl status docker"),
        (
            "filesystem layer verification failed for digest sha256:x",
            "sent something else than the image of this digest",
        ),
        ("x509: certificate signed by unknown authority", "does not trust the certificate of r.test"),
        ("dial tcp: connection refused", "check that the droplet reaches r.test"),
    ],
)
def test_a_pull_that_fails_says_what_to_do(fake: Path, monkeypatch: pytest.MonkeyPatch, said: str, wanted: str) -> None:
    monkeypatch.setattr(app_container.time, "sleep", lambda _seconds: None)
    message = refuse(fake, said)
    assert message.startswith("ocr: pull: cannot fetch r.test/ocr@sha256:aaa") and wanted in message


def test_the_login_is_in_no_argument_and_gone_afterwards(
    fake: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(app_container.time, "sleep", lambda _seconds: None)
    message = refuse(fake, "denied for s3cret-of-mine")
    assert "s3cret-of-mine" not in message + (fake / "called").read_text()
    assert (
        json.loads((fake / "login").read_text())["auths"]["r.test"]["auth"] == Login("fetcher", "s3cret-of-mine").basic
    )
    assert os.listdir(tmp_path / "logins") == []


def test_the_login_is_readable_by_root_alone_while_it_is_there() -> None:
    with app_container.client("ocr", image_of("r.test/ocr"), Login("a", "b")) as command:
        assert command[:2] == ["docker", "--config"]
        assert stat.S_IMODE(os.stat(command[2]).st_mode) == 0o700
        assert stat.S_IMODE(os.stat(command[2] + "/config.json").st_mode) == 0o600
        left = command[2]
    os.mkdir(left)  # as a killed run leaves it
    with app_container.client("ocr", image_of("r.test/ocr"), Login()):
        pass
    assert not os.path.exists(left)


def test_images_of_releases_that_are_gone_go_and_no_others() -> None:
    listing = "\n".join(
        [
            f"r.test:5000/ocr:shipshape-ocr-{A}",
            f"r.test:5000/ocr:shipshape-ocr-{B}",
            f"r.test:5000/ocr:shipshape-ocr-web-{B}",
            "r.test:5000/ocr:1.4",
            "<none>:<none>",
            "shipshape-ocr:latest",
        ]
    )
    assert app_container.unneeded(listing, "ocr", [A]) == [f"r.test:5000/ocr:shipshape-ocr-{B}"]
    assert app_container.unneeded(listing, "ocr", [A, B]) == []


def test_what_runs_of_the_idle_colour_is_ended_and_a_migration_is_not(
    fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_store, "UNITS", str(tmp_path))
    store = store_with(tmp_path / "ocr", {"id": A}, current=A, colour="blue")
    (fake / "there").write_text("c1 blue\nc2 green\nc3 \n")
    (fake / "images").write_text(f"r.test/ocr:shipshape-ocr-{A}\nr.test/ocr:shipshape-ocr-{B}\n")
    app_container.prune("ocr", store)
    assert ["rm", "--force", "--volumes", "c2"] in calls(fake)
    assert [call for call in calls(fake) if call[:2] == ["image", "rm"]] == [
        ["image", "rm", f"r.test/ocr:shipshape-ocr-{B}"]
    ]


def test_workers_that_the_engine_kept_while_their_units_were_stopped_end_before_others_start(
    fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_store, "UNITS", str(tmp_path))
    done: list[str] = []

    def systemctl(*words: str, **_: Any) -> tuple[int, str]:
        stopped = any(call[0] == "stop" for call in calls(fake))
        done.append(" ".join(words) + (" after docker stop" if stopped else ""))
        return 0, ""

    monkeypatch.setattr(app_service, "systemctl", systemctl)
    monkeypatch.setattr(app_service, "settled", lambda *_: ("", ""))
    (fake / "there").write_text("ocr-blue\nocr.worker-blue\nocr.beat-blue\n")
    store = store_with(tmp_path / "ocr", {"id": A, "processes": ["beat"]}, current=A, colour="blue")
    app = spec(processes=[{"name": "beat", "command": "beat", "stop_timeout": 30}])
    assert app_process.start_others(app, store, store.find(A), "green", 60) == ("", "")
    # The web process still answers; it ends when nobody asks it any more.
    assert [call for call in calls(fake) if call[0] in ("stop", "rm")] == [
        ["stop", "--time=30", "ocr.worker-blue", "ocr.beat-blue"],
        ["rm", "--force", "--volumes", "ocr.worker-blue", "ocr.beat-blue"],
    ]
    assert done[-1] == "restart ocr.beat@green.service after docker stop"


def test_connections_are_counted_where_the_container_has_them(fake: Path, tmp_path: Path) -> None:
    store = store_with(tmp_path / "ocr", {"id": A, "container": {"port": 8000}}, {"id": B}, current=A, colour="blue")
    store.point("blue", A)
    (fake / "process").write_text("4711\n")
    assert app_process.connections_of(spec(), store, "blue") == (8000, ["/proc/4711/net/tcp", "/proc/4711/net/tcp6"])
    (fake / "process").write_text("0\n")
    assert app_process.connections_of(spec(), store, "blue") == (8000, [])
    # Before it was a container, it listened on the host.
    store.point("blue", B)
    assert app_process.connections_of(spec(), store, "blue") == (20010, app_service.TABLES)


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("r.test/ocr:1.4", "1.4"),
        ("r.test/ocr", "latest"),
        (f"r.test/ocr@sha256:{OLD}", f"sha256:{OLD}"),
        (f"r.test/ocr:1.4@sha256:{OLD}", f"1.4@sha256:{OLD}"),
    ],
)
def test_the_version_is_the_image_s_unless_one_is_asked_for(image: str, version: str) -> None:
    app = spec(image=image)
    assert (app["container"]["image"], app["version"], app["git"]) == ("r.test/ocr", version, "")
    row = {"name": "ocr", "type": "container", "image": image}
    assert app_specs([row], "1.5")["ocr"]["version"] == "1.5"


def test_a_new_tag_alone_is_no_new_setting_and_everything_else_is() -> None:
    same = spec()["settings_fingerprint"]
    assert spec(image="r.test:5000/ocr:1.5")["settings_fingerprint"] == same
    assert spec(registry={"username": "a", "password": "b"})["settings_fingerprint"] == same
    changes: list[dict[str, Any]] = [
        {"container_port": 1},
        {"volumes": {"/a": "a"}},
        {"cpus": 0.5},
        {"image": "r.test/x:1.4"},
        {"processes": [{"name": "worker", "command": "work"}]},
        {"cron": WHOLE["cron"]},
        {"hooks": WHOLE["hooks"]},
    ]
    for change in changes:
        assert spec(**change)["settings_fingerprint"] != same
    worker = {"name": "worker", "command": "work"}
    limited = spec(processes=[{**worker, "memory": "1G"}])["settings_fingerprint"]
    # Limits are in a release's scripts; how many there are, and how long they may take to end, is in the units.
    assert limited != spec(processes=[worker])["settings_fingerprint"]
    more = spec(processes=[{**worker, "memory": "1G", "count": 3, "stop_timeout": 5}])
    assert more["settings_fingerprint"] == limited


def test_logins_are_sealed_and_of_the_apps_that_have_one() -> None:
    apps = [{"name": "a", "registry": {"username": "u", "password": "p"}}, {"name": "b"}]
    assert json.loads(base64.b64decode(app_registries(apps))) == {"a": {"username": "u", "password": "p"}}
    assert json.loads(base64.b64decode(app_registries(apps, "b"))) == {}


def test_each_colour_has_a_unit_with_its_own_place() -> None:
    app = {"name": "ocr", "type": "container", "image": "r.test/ocr:1", "port": 20010, "second_port": 20011}
    files = app_units([app, {**app, "name": "v6", "address": "::1"}])
    units = [file for file in files if file["path"].endswith(".service")]
    assert {unit["template"] for unit in units} == {"container.service.j2"}
    started = [unit["vars"]["__app_unit"]["script"] for unit in units]
    assert started == [
        "container blue 127.0.0.1:20010",
        "container green 127.0.0.1:20011",
        "container blue [::1]:20010",
        "container green [::1]:20011",
    ]


def test_what_runs_beside_a_container_has_units_and_a_timetable_as_an_app_from_git_has() -> None:
    app = {"name": "ocr", "type": "container", "image": "r.test/ocr:1", "port": 20010, "second_port": 20011, **WHOLE}
    files = {os.path.basename(file["path"]): file for file in app_units([app])}
    beside = {name: file["vars"]["__app_unit"] for name, file in files.items() if name.endswith(".service")}
    assert sorted(beside) == sorted(
        [
            *("ocr@blue.service", "ocr.worker@blue.service", "ocr.worker-2@blue.service", "ocr.beat@blue.service"),
            *("ocr@green.service", "ocr.worker@green.service", "ocr.worker-2@green.service", "ocr.beat@green.service"),
            "ocr.cleanup.service",
        ]
    )
    second = beside["ocr.worker-2@green.service"]
    assert (second["script"], second["container"]) == ("process.worker green 2", "ocr.worker-2-green")
    assert (second["beside"], second["stop_timeout"]) == ("ocr@green.service", 300)
    timed = beside["ocr.cleanup.service"]
    assert (timed["script"], timed["link"], timed["container"]) == ("cron.cleanup", "current", "ocr-cron.cleanup")
    crontab = files["shipshape-app-ocr"]["content"]
    assert crontab.splitlines()[1] == "0 3 * * * root systemctl start --no-block ocr.cleanup.service"


def test_a_new_digest_is_deployed_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_store, "UNITS", str(tmp_path))
    app = {**spec(), "directory": str(tmp_path)}
    record = {"settings": app["settings_fingerprint"], "environment": app["environment_fingerprint"]}
    store_with(tmp_path, {"id": A, "commit": OLD, **record}, current=A, colour="blue")
    states = {
        "ocr@blue.service": {"ActiveState": "active", "SubState": "running", "UnitFileState": "enabled"},
        "ocr@green.service": {},
    }
    assert app_release.decide(app, OLD, states, False)[0] == "none"
    action, facts = app_release.decide(app, NEW, states, False)
    assert (action, facts["reasons"]) == ("deploy", ["image bbbbbbb instead of aaaaaaa"])


def test_an_image_that_somebody_has_removed_is_fetched_anew(fake: Path, tmp_path: Path) -> None:
    app = {**spec(), "directory": str(tmp_path)}
    store_with(tmp_path, {"id": A, "commit": OLD, "container": app["container"]}, current=A, colour="blue")
    (fake / "images").write_text(f"r.test:5000/ocr:shipshape-ocr-{A}\n")
    assert app_container.lost([app]) == []
    (fake / "images").write_text(f"r.test:5000/ocr:1.4\nr.test:5000/ocr:shipshape-ocr-{B}\n")
    assert app_container.lost([app]) == ["ocr"]
    action, facts = app_release.decide(app, OLD, {}, False, lost=True)
    assert action == "deploy" and facts["reasons"][-1] == "its image is not on this host any more"
    (fake / "docker").write_text("#!/bin/sh\nexit 1\n")
    assert app_container.lost([app]) == []  # nobody knows: the engine does not answer


def test_there_is_no_way_back_to_a_release_of_another_kind(tmp_path: Path) -> None:
    store_with(tmp_path, {"id": A, "type": "python"}, {"id": B, "type": "container"}, current=B)
    with pytest.raises(AppError, match=r"release .*aaaaaaa is of type python, and the app is of type container now"):
        app_release.way_back({**spec(), "directory": str(tmp_path)}, A)


def test_on_a_bare_host_check_mode_asks_no_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_container, "AUTHORITIES", "/nonexistent")
    asked = [spec(), {**spec(image=f"r.test/x@sha256:{OLD}"), "name": "fixed"}, {"name": "p", "type": "python"}]
    assert app_container.wanted_digests(asked, {}, True) == {"ocr": "", "fixed": OLD}


def test_an_image_needs_no_user_on_the_host(tmp_path: Path) -> None:
    app = {**spec(), "user": "nobody-at-all", "directory": str(tmp_path / "ocr")}
    changes = app_ground.prepare(app, False, lambda _store: None)
    assert changes == [f"directory {tmp_path}/ocr", f"directory {tmp_path}/ocr/releases"]
    assert stat.S_IMODE((tmp_path / "ocr").stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("version", "shown"),
    [
        ("1.4", "1.4"),
        (f"1.4@sha256:{OLD}", "1.4"),
        (f"sha256:{OLD}", "sha256:aaaaaaa"),
    ],
)
def test_the_list_of_releases_shows_versions_short(version: str, shown: str) -> None:
    assert app_info.shown_version(version) == shown
