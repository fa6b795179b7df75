"""Deploys of each type of app that are killed at each step, or that meet a fault: what serves goes on serving.

One droplet with three apps under light load. The controller is killed with all that it has started, three at a time,
one for each app; the next run deploys what is declared, and nothing is left of the one before.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
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

# A python app is killed at each step in test_more_droplets.py, each time.
pytestmark = pytest.mark.skipif(not settings.EVERYTHING, reason="ten minutes of them: make test-all")

NAME = "shipshape-fault-one"
HOSTS = {"one": "10.77.0.62"}
APPS = ("desk", "ocr", "page")
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
#: Each step takes a moment, so that it can be met at work.
VARIABLES: dict[str, Any] = {
    "acme_email": "ops@fault.test",
    "admins": [{"name": "deploy", "ssh_keys": ["{{ vault_malar_admin_key }}"]}],
    "app_watch_seconds": 2,
    "app_drain_seconds": 3,
    "git_server": "git.test",
    "apps": {
        "desk": {
            "type": "command",
            "source": {"git": "https://{{ git_server }}/faults.git"},
            "build": 'sleep 1 && echo "$STAMP" >built',
            "migrate": "sleep 1",
            "command": "python3 serve.py",
            "processes": {"worker": {"command": "sleep 100000", "stop_timeout": 2}},
            "domains": [DOMAINS[0]],
            "health": "/",
            "env": {"STAMP": "{{ stamp }}"},
        },
        "ocr": {
            "type": "container",
            "image": "registry.test/ocr:{{ ocr_tag }}",
            "registry": "{{ vault_fetcher }}",
            "container_port": 8000,
            "migrate": "python3 /app/server.py migrate",
            "domains": [DOMAINS[1]],
            "health": "/health",
            "env": {"STAMP": "{{ stamp }}"},
        },
        "page": {
            "type": "static",
            "source": {"git": "https://{{ git_server }}/faults.git"},
            "build": 'sleep 1 && mkdir out && echo "$STAMP" >out/index.html',
            "publish": "out",
            "domains": [DOMAINS[2]],
            "env": {"STAMP": "{{ stamp }}"},
        },
    },
}
#: (when it is killed, at which task, so many seconds after its beginning)
MOMENTS = {
    "builds": ("Deploy | Build", 0.8),
    "migrates": ("Deploy | Migrate", 0.8),
    "starts": ("Deploy | Start", 0.8),
    "switches": ("Deploy | Lead the proxies to", 0.4),
    "watches": ("Deploy | Lead the proxies to", 1.6),
    "ends": ("Deploy | End", 0.7),
}
#: Every line that it prints is something that a run has left behind, or a release that is not in one piece.
LEFT = r"""
shopt -s nullglob
for app in desk ocr page; do
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
[ "$(docker ps --all --quiet | wc -l)" = 1 ] || docker ps --all
comm -3 <(docker image ls --format '{{.Tag}}' | grep -o 'shipshape-ocr-.*' | sort) \
    <(ls /srv/ocr/releases | sed s/^/shipshape-ocr-/ | sort)
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


def kill_at(command: list[str], task: str, after: float) -> str:
    """Start a controller, and kill it with all that it has started in the middle of a task; what it had printed."""
    process = subprocess.Popen(
        command, cwd=PROJECT, env=environment(), text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    assert process.stdout
    printed = ""
    for line in process.stdout:
        printed += line
        if line.startswith("TASK") and task in line:
            time.sleep(after)
            for child in descendants(process.pid):
                # One of them may just have come to its end by itself.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            break
    process.wait(timeout=60)
    return printed


def kill_all_at(faults: Faults, moment: str) -> None:
    """A controller for each app, all of them killed at the same step."""
    task, after = MOMENTS[moment]
    printed: dict[str, str] = {}
    commands = {app: faults.deploy_command(app) for app in APPS}

    def kill(app: str) -> None:
        printed[app] = kill_at(commands[app], task, after)

    threads = [threading.Thread(target=kill, args=(app,)) for app in APPS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for app, text in printed.items():
        # A site has nothing to migrate, and no proxy is led anywhere for it: that run comes to its end.
        assert task in text or (app == "page" and "PLAY RECAP" in text), (app, text[-3000:])


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
