"""Deploys of each type of app that are killed at each step, or that meet a fault: what serves goes on serving.

One droplet with an app of each type under light load. Each app has a controller of its own, which is killed with all
that it has started while the step is at work on the droplet; the next run deploys what is declared, and nothing is left
of the one before.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.lab import registry, repository, settings
from tests.lab.engine import docker
from tests.site import system
from tests.site.load import Load
from tests.site.system import PROJECT, System, descendants, environment

# In each run of the tests, a python app is killed at each step in test_more_droplets.py.
pytestmark = pytest.mark.skipif(not settings.EVERYTHING, reason="a quarter of an hour of them: make test-all")

NAME = "shipshape-fault-one"
HOSTS = {"one": "10.77.0.62"}
TYPES = {"api": "python", "desk": "command", "ocr": "container", "board": "compose", "page": "static"}
APPS = tuple(TYPES)
DOMAINS = tuple(f"{app}.fault.test" for app in APPS)
SERVER = """import http.server, os
class Desk(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = os.environ["STAMP"].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Desk).serve_forever()
"""
SHARED_IMAGE = f"{registry.DOMAIN}:{registry.OPEN_PORT}/{registry.REPOSITORY}:v1"
#: What is beside the service that answers is another one in each release, so that it has to change over.
COMPOSE: dict[str, Any] = {
    "services": {
        "web": {
            "image": SHARED_IMAGE,
            "command": "python3 /app/server.py",
            "environment": {"HOST": "0.0.0.0", "PORT": 8000},
            "volumes": ["kept:/data"],
            "init": True,
        },
        "worker": {
            "image": SHARED_IMAGE,
            "command": ["python3", "-c", "import time; time.sleep(1e6)"],
            "environment": {"STAMP": "${STAMP}"},
            "init": True,
        },
    },
    "volumes": {"kept": {}},
}
SERVED: dict[str, Any] = {
    "source": {"git": "https://{{ git_server }}/faults.git"},
    "migrate": "sleep 1",
    "hooks": {"before_switch": "sleep 1"},
    "env": {"STAMP": "{{ stamp }}"},
}
IMAGE: dict[str, Any] = {
    "container_port": 8000,
    "migrate": "python3 /app/server.py migrate",
    "hooks": {"before_switch": "python3 -c 'import time; time.sleep(1)'"},
    "health": "/health",
}
#: Each step takes a moment, so that it can be met at work.
VARIABLES: dict[str, Any] = {
    "acme_email": "ops@fault.test",
    "admins": [{"name": "deploy", "ssh_keys": ["{{ vault_malar_admin_key }}"]}],
    "app_watch_seconds": 2,
    "app_drain_seconds": 3,
    "git_server": "git.test",
    "apps": {
        "api": {**SERVED, "build": "sleep 1", "command": "python serve.py", "health": "/"},
        "desk": {
            **SERVED,
            "build": 'sleep 1 && echo "$STAMP" >built',
            "command": "python3 serve.py",
            "processes": {"worker": {"command": "sleep 100000", "stop_timeout": 2}},
            "health": "/",
        },
        "ocr": {
            **{key: SERVED[key] for key in ("env",)},
            **IMAGE,
            "image": f"{registry.DOMAIN}/{registry.REPOSITORY}:{{{{ ocr_tag }}}}",
            "registry": "{{ vault_fetcher }}",
        },
        "board": {**SERVED, **IMAGE, "service": "web"},
        "page": {
            **{key: SERVED[key] for key in ("source", "env")},
            "build": 'sleep 1 && mkdir out && echo "$STAMP" >out/index.html',
            "publish": "out",
            "hooks": {"before_switch": "sleep 1", "after_switch": "sleep 1"},
        },
    },
}
for name, said in VARIABLES["apps"].items():
    said |= {"type": TYPES[name], "domains": [f"{name}.fault.test"]}
#: Whether a step is at work: it has the lock of the app, or the proxy leads elsewhere than before.
LOCKED = "grep -q ' /srv/{app}/.lock$' <(ls -l /proc/[0-9]*/fd 2>/dev/null)"
LED = '[ "$(ls /var/lib/shipshape/live | grep ^{app}.green)" != "{flag}" ]'
#: (when it is killed, at which task, so many seconds after what)
MOMENTS = {
    "builds": ("Deploy | Build the release", 0.2, LOCKED),
    "migrates": ("Deploy | Migrate", 0.2, LOCKED),
    "starts": ("Deploy | Start the release", 0.4, LOCKED),
    "is about to switch": ("Deploy | Run what comes before the switch", 0.2, LOCKED),
    "switches": ("Deploy | Lead the proxies to", 0.0, LED),
    "watches": ("Deploy | Lead the proxies to", 1.0, LED),
    "ends": ("Deploy | End the release", 0.2, LOCKED),
}
#: A site has nothing to migrate or to start, and no proxy is led anywhere for it.
OF_A_SITE = ("builds", "is about to switch", "ends")
#: Every line that it prints is something that a run has left behind, or a release that is not in one piece.
LEFT = r"""
shopt -s nullglob
for app in api desk ocr board page; do
    cd /srv/$app
    for left in deploy.loc[k] archiv[e] *.new *.new-* releases/*.new*; do echo "$app: $left"; done
    for release in releases/*; do
        grep -q '"activated": "20' $release/release.json || echo "$app: $release was never live"
    done
    live=$(basename "$(readlink current)")
    grep -q "$live" activation.json || echo "$app: $live is not confirmed"
    [ $app != page ] || continue
    colour=$(python3 -c 'import json; print(json.load(open("activation.json"))["colour"])')
    flag=blue; [ ! -e /var/lib/shipshape/live/$app.green ] || flag=green
    [ $flag = $colour ] || echo "$app: the proxy leads to $flag, and $colour is live"
    [ "$(basename "$(readlink $colour)")" = "$live" ] || echo "$app: $colour is not the live release"
    for each in blue green; do
        wanted=inactive; [ $each != $colour ] || wanted=active
        for unit in $app@$each $(find /etc/systemd/system -name "$app.*@$each.service" -printf '%f '); do
            state=$(systemctl is-active $unit || true)
            [ "$state" = $wanted ] || echo "$unit is $state"
        done
    done
done
[ "$(docker ps --all --quiet | wc -l)" = 3 ] || docker ps --all
for app in ocr board; do
    comm -3 <(docker image ls --format '{{.Tag}}' | grep -o "shipshape-$app-.*" | sort --unique) \
        <(ls /srv/$app/releases | sed s/^/shipshape-$app-/ | sort)
done
grep -q "$(basename "$(readlink /srv/board/current)")" /srv/board/services.json || cat /srv/board/services.json
stamp=$(grep -o 'stamp-[0-9]*' /srv/board/current/env)
docker inspect --format '{{.Config.Env}}' $(docker ps --quiet --filter label=com.docker.compose.service=worker) |
    grep -q "STAMP=$stamp " || echo "the worker of board is not that of $stamp"
for login in /run/shipshape/login-* /run/shipshape/deploy-key-* /run/shipshape/.new-*; do echo "$login"; done
systemctl list-units --failed --plain --no-legend
"""


class Faults(System):
    """The droplet, with its console."""

    def console(self, script: str) -> str:
        return docker("exec", NAME, "bash", "-euo", "pipefail", "-c", script)

    def deploy_command(self, app: str, *arguments: str) -> list[str]:
        return self.command("playbooks/deploy.yml", "-e", f"app={app}", *arguments)

    def answer(self, app: str) -> str:
        return system.fetch(f"https://{app}.fault.test/", HOSTS["one"], {}, None).body

    def stamp(self) -> str:
        return str(self.extra["stamp"])

    def next_stamp(self) -> str:
        number = int(self.stamp().partition("-")[2]) + 1
        self.extra["stamp"] = f"stamp-{number}"
        return self.stamp()


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faults]:
    registry.ensure_registry()
    folder = tmp_path_factory.mktemp("faults")
    code = folder / "code"
    code.mkdir()
    (code / "serve.py").write_text(SERVER, encoding="utf-8")
    (code / "compose.yml").write_text(yaml.safe_dump(COMPOSE), encoding="utf-8")
    repository.publish(code, "faults")
    inventory = folder / "inventory"
    (inventory / "group_vars" / "all").mkdir(parents=True)
    groups: dict[str, Any] = {group: {"hosts": {"one": {}}} for group in ("proxy", "app")}
    (inventory / "hosts.yml").write_text(yaml.safe_dump(groups), encoding="utf-8")
    (inventory / "group_vars" / "all" / "main.yml").write_text(yaml.safe_dump(VARIABLES), encoding="utf-8")
    made = Faults(
        inventory, HOSTS, folder, {}, DOMAINS, {"stamp": "stamp-1", "ocr_tag": "v1", "vault_fetcher": registry.login()}
    )
    system.start("fault", HOSTS, DOMAINS)
    # A disk of the engine's own, that can be filled.
    made.console("mount -t tmpfs -o size=700m tmpfs /var/lib/docker")
    try:
        run = made.play("site.yml")
        assert run.code == 0, run.tail
        yield made
    finally:
        system.stop("fault", HOSTS)


@contextlib.contextmanager
def loaded(*apps: str) -> Iterator[dict[str, Load]]:
    """Light load on these apps; not one request of it may fail."""
    with contextlib.ExitStack() as stack:
        loads = {app: stack.enter_context(Load(f"{app}.fault.test", HOSTS["one"])) for app in apps}
        yield loads
    for app, load in loads.items():
        assert not load.failed, (app, load.failed)
        assert len(load.seen) > 20, (app, len(load.seen))


def kill_at(faults: Faults, app: str, moment: str) -> str:
    """Kill a controller, with all that it has started, while a step is at work. Nothing, or how that was missed."""
    task, after, at_work = MOMENTS[moment]
    flag = faults.console(f"ls /var/lib/shipshape/live | grep ^{app}.green || true")
    begun = f"for _ in $(seq 400); do {at_work.format(app=app, flag=flag)} && exit 0; sleep 0.05; done"
    command = faults.deploy_command(app)
    process = subprocess.Popen(
        command, cwd=PROJECT, env=environment(), text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    assert process.stdout
    printed = ""
    for line in process.stdout:
        printed += line
        if line.startswith("TASK") and task in line:
            faults.console(begun)
            time.sleep(after)
            for child in descendants(process.pid):
                # One of them may just have come to its end by itself.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            break
    rest = process.stdout.read()
    process.wait(timeout=60)
    if task in printed and process.returncode == -signal.SIGKILL and "\nTASK" not in rest:
        return ""
    return f"{app} has not {moment}: exit {process.returncode}\n{(printed + rest)[-3000:]}"


def kill_all_at(faults: Faults, moment: str) -> None:
    """A controller for each app that has this step, all of them killed at it."""
    apps = [app for app in APPS if app != "page" or moment in OF_A_SITE]
    with concurrent.futures.ThreadPoolExecutor(len(apps)) as controllers:
        missed = list(controllers.map(lambda app: kill_at(faults, app, moment), apps))
    assert not any(missed), "\n".join(missed)


def served(loads: dict[str, Load], app: str) -> set[str]:
    return {
        word for body in set(loads[app].seen) for word in body.replace('"', " ").split() if word.startswith("stamp-")
    }


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_controller_that_is_killed_while_it(moment: str, faults: Faults) -> None:
    before, after = faults.stamp(), faults.next_stamp()
    with loaded(*APPS) as loads:
        kill_all_at(faults, moment)
        run = faults.play("playbooks/deploy.yml")
        assert run.code == 0, run.tail
    assert faults.console(LEFT) == ""
    for app in APPS:
        assert after in faults.answer(app), app
        assert served(loads, app) <= {before, after}, app


def refused(faults: Faults, app: str, *arguments: str) -> str:
    """A deploy under load that has to fail: what it said. The same release serves on, and nothing is left."""
    live = faults.console(f"readlink /srv/{app}/current")
    with loaded(app) as loads:
        run = faults.play("playbooks/deploy.yml", "-e", f"app={app}", *arguments)
        assert run.code != 0, run.tail
    assert len(set(loads[app].seen)) == 1
    assert faults.console(f"readlink /srv/{app}/current") == live
    assert faults.console(LEFT) == ""
    return run.output


def test_a_git_server_that_is_down_is_named_and_the_next_run_succeeds(faults: Faults) -> None:
    said = refused(faults, "desk", "-e", "git_server=git.test:4443")
    assert "desk: source: git cannot list https://git.test:4443/faults.git; check source.git" in said, said[-3000:]
    run = faults.play("playbooks/deploy.yml", "-e", "app=desk")
    assert (run.code, run.count("changed")) == (0, 0), run.tail


def test_an_image_that_does_not_fit_on_the_disk_leaves_the_old_one_serving(faults: Faults) -> None:
    faults.console("dd if=/dev/zero of=/var/lib/docker/ballast bs=64k 2>/dev/null || true")
    try:
        said = refused(faults, "ocr", "-e", "ocr_tag=v2")
        assert "ocr: pull: the disk of the droplet is full: /var/lib/docker has " in said, said[-3000:]
    finally:
        faults.console("rm /var/lib/docker/ballast")
    faults.extra["ocr_tag"] = "v2"
    with loaded("ocr"):
        run = faults.play("playbooks/deploy.yml", "-e", "app=ocr")
    assert run.code == 0, run.tail
    assert '"version": "2.0"' in faults.answer("ocr") and faults.console(LEFT) == ""


def test_of_two_deploys_at_once_the_second_is_told_who_has_the_app(faults: Faults) -> None:
    after = faults.next_stamp()
    first = subprocess.Popen(
        faults.deploy_command("desk"), cwd=PROJECT, env=environment(), text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert first.stdout
    printed = next(line for line in first.stdout if "Deploy | Build" in line)
    second = faults.play("playbooks/deploy.yml", "-e", "app=desk")
    printed += first.communicate(timeout=120)[0]
    assert second.code != 0 and "desk: lock: another run is at work: deploy of what is new of " in second.output
    assert first.returncode == 0, printed[-3000:]
    assert faults.answer("desk") == after and faults.console(LEFT) == ""
