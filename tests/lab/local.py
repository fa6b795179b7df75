"""`make up`: the example apps in production on a droplet of this machine. `make down`: nothing is left of it."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.lab import droplet, repository, services, settings
from tests.lab.engine import LabError, docker, inspect, say, stage
from tests.lab.host import privileged
from tests.lab.image import ensure_image, remove_images
from tests.vm import machine


def up() -> None:
    """Run again, it changes only what has changed: the same droplet, a newer commit of the example."""
    started = time.monotonic()
    apps = inventory_apps()
    ensure_image(settings.DEFAULT_RELEASE)
    services.ensure_services()
    commit = repository.publish(settings.EXAMPLE, settings.EXAMPLE.name)
    say(f"serving {settings.EXAMPLE.name} at commit {commit[:10]} from https://git.test/{settings.EXAMPLE.name}.git")
    domains = [domain for app in apps for domain in app.domains]
    droplet.start(settings.LOCAL_DROPLET, settings.DEFAULT_RELEASE, settings.LOCAL_ADDRESS, domains)
    _play()
    with stage("fetching the apps over HTTPS, certificates verified"):
        commands = [_fetch(app) for app in apps]
    print(f"\nUp in {time.monotonic() - started:.0f} s. From this machine, with the lab's authority trusted:")
    for command in commands:
        print(f"  {shlex.join(command)}")
    key, known = (os.path.relpath(path) for path in (settings.SSH_KEY, settings.KNOWN_HOSTS))
    print(f"  ssh -i {key} -o UserKnownHostsFile={known} deploy@{settings.LOCAL_ADDRESS}")
    print("Again: make up. Remove everything: make down.", flush=True)


@dataclass(frozen=True)
class App:
    """As far as one needs to know an app to ask for it from outside."""

    domains: tuple[str, ...]
    path: str


def inventory_apps() -> list[App]:
    """The inventory's apps. Only what is plain text in it is read, so that no template needs evaluating."""
    inventory = settings.LOCAL_INVENTORY / "group_vars" / "all" / "main.yml"
    apps = yaml.safe_load(inventory.read_text(encoding="utf-8"))["apps"]
    return [
        App((*app["domains"], *app.get("redirect_domains", [])), str(app.get("health", "/"))) for app in apps.values()
    ]


def _play() -> None:
    command = [_program("ansible-playbook"), "site.yml", "--inventory", str(settings.LOCAL_INVENTORY)]
    with stage(f"ansible-playbook site.yml -i {settings.LOCAL_INVENTORY.relative_to(settings.PROJECT)}"):
        result = subprocess.run(command, cwd=settings.PROJECT, stdin=subprocess.DEVNULL, check=False)
    if result.returncode != 0:
        raise LabError(
            "the play failed; its last task above says why. Once that is mended, `make up` goes on from there."
        )


def _fetch(app: App) -> list[str]:
    """Ask for an app as a stranger would, but for the name server and the authority; return the command that did."""
    domain = app.domains[0]
    command = [
        *("curl", "--fail", "--silent", "--show-error", "--cacert", os.path.relpath(settings.CA_CERTIFICATE)),
        *("--resolve", f"{domain}:443:{settings.LOCAL_ADDRESS}", f"https://{domain}{app.path}"),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    if result.returncode != 0:
        raise LabError(f"`{shlex.join(command)}` failed:\n{result.stderr.strip()}")
    answer = result.stdout.strip().splitlines()[0] if result.stdout.strip() else "an empty answer"
    say(f"https://{domain}{app.path} → {answer[:100]}")
    return command


def _program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def down(*, keep_images: bool) -> None:
    """Remove by name and label what the lab has made, and nothing that it has not."""
    machine.remove_all()
    if shutil.which("docker") and _engine_answers():
        ours = f"--filter=label={settings.LABEL}"
        with stage("removing droplets, services and volumes"):
            if containers := docker("ps", "--all", "--quiet", ours).split():
                docker("rm", "--force", "--volumes", *containers)
            if inspect("network", settings.NETWORK):
                docker("network", "rm", settings.NETWORK)
            if volumes := docker("volume", "ls", "--quiet", ours).split():
                docker("volume", "rm", *volumes)
            if not keep_images:
                remove_images()
        _stop_own_engine()
    shutil.rmtree(settings.STATE, ignore_errors=True)
    say("nothing is left of the lab" + (" but its images" if keep_images else ""))


def _engine_answers() -> bool:
    return subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0


def _stop_own_engine() -> None:
    """The engine that `make engine` has put into the background, unless somebody else's containers run in it."""
    note = settings.STATE / "dockerd.pid"
    if not note.exists():
        return
    process = int(note.read_text(encoding="utf-8"))
    program = Path(f"/proc/{process}/comm")
    if not program.exists() or program.read_text(encoding="utf-8").strip() != "dockerd":
        return
    if docker("ps", "--quiet"):
        say(f"the Docker engine (process {process}) goes on: it runs containers that are not the lab's")
        return
    with stage("stopping the Docker engine that was started for the lab"):
        subprocess.run(privileged(["kill", f"-{signal.SIGTERM.value}", str(process)]), check=True)
        deadline = time.monotonic() + 30
        while _engine_answers() and time.monotonic() < deadline:
            time.sleep(0.2)
