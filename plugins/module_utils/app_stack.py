"""Releases of an app that is a Compose file: resolved and built by Compose, its web service run by systemd.

A release's folder has the code (`src`), the file that Compose works from later on (`compose.json`), and the scripts
that start the web service under a colour or run something once in its place. The other services run as Compose and
the engine run them; they are touched only when a release wants them otherwise. No volume is ever removed.

/srv/<app>/files/<sum>/    files of the code that other services have mounted: the same content has the same path in all
                           releases, so that who mounts it stays as it is
/srv/<app>/services.json   the release whose other services run
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import time
from typing import Any, Iterable, Mapping, Sequence

from ansible_collections.shipshape.droplet.plugins.module_utils import app_compose, app_container, app_env, app_registry
from ansible_collections.shipshape.droplet.plugins.module_utils.app_compose import Refused, Wanted
from ansible_collections.shipshape.droplet.plugins.module_utils.app_registry import Image, Login
from ansible_collections.shipshape.droplet.plugins.module_utils.app_service import SETTLED
from ansible_collections.shipshape.droplet.plugins.module_utils.app_store import Release, Store
from ansible_collections.shipshape.droplet.plugins.module_utils.app_system import (
    AppError,
    last_lines,
    read_record,
    run,
    write_file,
    write_record,
)

FILE = "compose.json"
#: The first that can read a file without a version.
LEAST = (1, 27)
BUILD_TIMEOUT = 3600
#: What git keeps an empty folder by.
PLACEHOLDERS = {".gitkeep", ".gitignore", ".keep", ".empty"}
#: Of those who work on a file of theirs, not of a release.
QUIET = {"COMPOSE_IGNORE_ORPHANS": "true", "DOCKER_CONFIG": "/nonexistent"}
#: What Compose says of its own doings, on its way to what was asked for.
CHATTER = re.compile(r"^(Creating \S+ \.\.\.( done)?\s*| (Network|Volume|Container) \S+  \w+)$")

#: What the scripts of a release know beside those of a container app. Which Compose there is, an upgrade may change.
CALL = """export COMPOSE_IGNORE_ORPHANS=true DOCKER_CONFIG=/nonexistent
compose="docker compose"
$compose version >/dev/null 2>&1 || compose=docker-compose
"""
CREATE = """begin() {{
    export {published}="${{2:-}}"
    said=$($compose -p {app} -f {file} up --no-start --no-build --no-deps {service}-"$1" 2>&1) || {{
        echo "$said" >&2
        return 1
    }}
    docker start --attach "$name"
}}
"""


def command(app: str) -> list[str]:
    """How Compose is called on this host."""
    for words in (["docker", "compose"], ["docker-compose"]):
        code, said = run(None, [*words, "version", "--short"], timeout=60, extra=QUIET)
        found = re.search(r"(\d+)\.(\d+)", said) if code == 0 else None
        if found and (int(found[1]), int(found[2])) >= LEAST:
            return words
        if found:
            raise AppError(
                app,
                "compose",
                f"Compose is of version {found[0]} here and must be 1.27 or later; take Docker from its own packages:"
                " `docker_origin: upstream`",
            )
    raise AppError(app, "compose", "Compose is not installed here; run playbooks/docker.yml")


def compose(app: str, release: Release, *words: str, timeout: int = 600, lock: int | None = None) -> tuple[int, str]:
    """Have Compose do something with the services of a release."""
    file = os.path.join(release.path, FILE)
    code, said = run(None, [*command(app), "-p", app, "-f", file, *words], timeout=timeout, lock=lock, extra=QUIET)
    return code, app_env.scrub(without_chatter(said), app_compose.values_of(read(release)))


def without_chatter(said: str) -> str:
    return "\n".join(line for line in said.splitlines() if not CHATTER.match(line))


def read(release: Release) -> dict[str, Any]:
    """The file that a release is run from."""
    return read_record(os.path.join(release.path, FILE)) or {}


def rest_of(release: Release) -> list[str]:
    """The services beside the web one."""
    return [str(name) for name in read(release).get(app_compose.NOTES, {}).get("rest", [])]


# ---- building


class Checkout:
    """The files of a release that its services may mount."""

    def __init__(self, app: Mapping[str, Any], store: Store, path: str) -> None:
        self.web, self.store = app["container"]["service"], store
        self.source = os.path.realpath(os.path.join(path, "src"))
        self.shared = [os.path.normpath(folder) for folder in app["shared"]]
        self.state = os.path.join(app_container.STATE, app["name"])

    def place(self, service: str, path: str) -> str:
        """Where something really lies that a service mounts by a path in the code.

        What the code does not have, or has as an empty folder, is data: it lies where all releases find it. What it has
        is, for the web service, the release's own; for the others it is known by its content.
        """
        inside = os.path.relpath(os.path.normpath(path), self.source)
        if os.path.isabs(path) and inside.split(os.sep)[0] == os.pardir:
            if os.path.normpath(path).startswith(os.path.dirname(os.path.dirname(self.source)) + os.sep):
                raise Refused(f"it mounts {path}, which is out of the code; give an absolute path, or one in the code")
            return path  # the droplet's own
        if inside != "." and self._is_data(inside):
            kept = os.path.join(self.state, inside)
            if service:  # a secret is a file, which an operator puts there
                make_folder(kept, self.state)
            return kept
        return os.path.join(self.source, inside) if service == self.web else self._by_content(inside)

    def _is_data(self, inside: str) -> bool:
        if any(inside == folder or inside.startswith(folder + os.sep) for folder in self.shared):
            return True
        path = os.path.join(self.source, inside)
        if not os.path.lexists(path):
            return True
        return os.path.isdir(path) and set(os.listdir(path)) <= PLACEHOLDERS

    def _by_content(self, inside: str) -> str:
        path = os.path.join(self.source, inside)
        folder = os.path.join(files_directory(self.store), checksum(path))
        target = os.path.join(folder, os.path.basename(path))
        if not os.path.lexists(target):
            os.makedirs(os.path.dirname(folder), mode=0o755, exist_ok=True)
            unfinished = folder + ".new"
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(unfinished)
            os.mkdir(unfinished, 0o755)
            copy = os.path.join(unfinished, os.path.basename(path))
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.copytree(path, copy, symlinks=True)
            else:
                shutil.copy(path, copy)
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(folder)
            os.rename(unfinished, folder)
        return target


def files_directory(store: Store) -> str:
    return os.path.join(store.directory, "files")


def checksum(path: str) -> str:
    """What tells the content of a file or of a folder."""
    digest = hashlib.sha256()

    def take(entry: str, name: str) -> None:
        mode = os.lstat(entry).st_mode & 0o777
        if os.path.islink(entry):
            digest.update(f"{name}\0link\0{os.readlink(entry)}\0".encode())
        elif os.path.isdir(entry):
            digest.update(f"{name}\0folder\0{mode}\0".encode())
            for child in sorted(os.listdir(entry)):
                take(os.path.join(entry, child), f"{name}/{child}")
        else:
            digest.update(f"{name}\0file\0{mode}\0{os.path.getsize(entry)}\0".encode())
            with open(entry, "rb") as stream:
                for block in iter(lambda: stream.read(1 << 20), b""):
                    digest.update(block)

    take(path, os.path.basename(path))
    return digest.hexdigest()[:32]


def make_folder(path: str, state: str) -> None:
    """A folder for data that outlives a release. On the droplet nobody but root comes to it."""
    if os.path.lexists(path):
        return
    os.makedirs(os.path.dirname(state), mode=0o755, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.mkdir(state, 0o700)
    os.makedirs(path, mode=0o755, exist_ok=True)


def files_of(app: Mapping[str, Any], source: str) -> list[str]:
    """The Compose files of the code, in the order in which the later ones add to the earlier ones."""
    named = [str(name) for name in app["container"]["files"]]
    found = named or [name for name in app_compose.NAMES if os.path.isfile(os.path.join(source, name))][:1]
    missing = [name for name in found if not os.path.isfile(os.path.join(source, name))]
    if found and not missing:
        return [os.path.join(source, name) for name in found]
    there = [os.path.relpath(os.path.join(folder, name), source)
             for folder, _folders, names in os.walk(source) for name in names
             if re.search(r"compose.*\.ya?ml$", name)]  # fmt: skip
    has = f"it has {', '.join(sorted(there)[:8])}" if there else "it has none of that kind"
    wanted = ", ".join(missing) or " or ".join(app_compose.NAMES)
    raise AppError(app["name"], "compose", f"there is no {wanted} in the code; {has}; check `compose_file`")


def resolve(
    app: Mapping[str, Any], source: str, environment: Mapping[str, str], lock: int | None = None
) -> tuple[dict[str, Any], list[str]]:
    """The file as Compose understands it, with every variable filled in; and what it warns of."""
    files = files_of(app, source)
    words = [*command(app["name"]), "-p", app["name"]]
    for file in files:
        words += ["-f", file]
    words += ["config"] + (["--format", "json"] if words[0] == "docker" else [])
    done = subprocess.run(
        words,
        cwd=source,
        env={**os.environ, "LC_ALL": "C.UTF-8", **environment, **QUIET},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=120,
        pass_fds=() if lock is None else (lock,),
        check=False,
    )
    said = app_env.scrub(done.stderr.decode("utf-8", "replace"), environment)
    shown = " and ".join(os.path.relpath(file, source) for file in files)
    if done.returncode != 0:
        raise AppError(app["name"], "compose", f"Compose does not take {shown}. Its words:\n{last_lines(said, 12)}")
    found = app_compose.parse(done.stdout.decode("utf-8", "replace"))
    profiles = re.split(r"[,\s]+", environment.get("COMPOSE_PROFILES", ""))
    found["services"] = app_compose.active(found["services"], filter(None, profiles))
    unset = sorted(set(re.findall(r'[Tt]he \\?"?(\w+)\\?"? variable is not set', said)))
    warnings = [f"{app['name']}: {shown} has ${{{name}}}, which is not set and therefore empty; give it in `env`"
                for name in unset]  # fmt: skip
    return found, warnings


def check_project(app: str) -> None:
    """Refuse to take over what somebody else has started under the app's name."""
    code, said = app_container.docker(
        "ps",
        "--all",
        "--filter",
        f"label=com.docker.compose.project={app}",
        '--format={{.Names}} {{.Label "shipshape.app"}}',
    )
    strange = [line.split()[0] for line in said.splitlines() if len(line.split()) == 1] if code == 0 else []
    if strange:
        raise AppError(
            app,
            "compose",
            f"a Compose project {app} runs here that is not this app's ({', '.join(strange[:5])}); end it with"
            f" `docker compose -p {app} down`, which keeps its volumes, or give the app another name",
        )


def pull(app: str, reference: str, server: str, login: Login, client: Sequence[str], lock: int | None) -> None:
    """Fetch an image by the name that the file gives it."""
    output = ""
    for attempt in range(app_container.ATTEMPTS):
        if attempt:
            time.sleep(3 * attempt)
        code, output = run(None, [*client, "pull", "--quiet", reference], timeout=1800, lock=lock)
        if code == 0:
            return
        if any(word in output for word in ("manifest unknown", "unauthorized", "denied", "no basic auth")):
            break
    output = output.replace(login.password, app_env.HIDDEN) if login.password else output
    raise AppError(
        app, "pull", f"cannot fetch {reference}: {why_not(reference, server, login, output)}\n{last_lines(output, 5)}"
    )


def why_not(reference: str, server: str, login: Login, output: str) -> str:
    """What to do about an image that cannot be fetched."""
    name, version = app_registry.split(reference)
    try:
        host = app_registry.image_of(name).host
    except ValueError:
        return "that is no name of an image; check the Compose file"
    if any(word in output for word in ("unauthorized", "denied", "no basic auth", "authentication required")):
        if login.username and server == host:
            return f"{host} refuses it to {login.username}; check `registry`, and whether there is such an image"
        return (
            f"{host} wants a login, or has no such image; give the app `registry: {{server: {host}, username: …,"
            " password: …}`, the password from the vault"
        )
    return str(app_container.explain(output, name, version, login)).replace("`image`", "the Compose file")


def build(
    app: Mapping[str, Any], store: Store, release: str, path: str, environment: Mapping[str, str], login: Login,
    lock: int | None,
) -> list[str]:  # fmt: skip
    """All that a release is run from, into its folder. What is to be warned of."""
    name, source = app["name"], os.path.join(path, "src")
    container = app["container"]
    wanted = Wanted(
        name, release, container["service"], container["port"], container["memory"], container["cpus"],
        environment, container["sockets"],
    )  # fmt: skip
    resolved, warnings = resolve(app, source, environment, lock)
    checkout = Checkout(app, store, path)
    try:
        app_compose.check(resolved, wanted)
        check_project(name)
        server = container["server"]
        with app_container.client(name, Image(server or app_registry.HUB, ""), login) as client:
            images = _images(resolved, wanted, source, environment, server, login, client, lock)
        file = app_compose.runnable(resolved, wanted, images, checkout.place)
    except Refused as refused:
        raise AppError(name, "compose", f"the Compose file cannot be deployed: {refused}") from refused
    write_file(os.path.join(path, FILE), json.dumps(file, indent=1, ensure_ascii=False) + "\n", 0o600)
    for script, text in scripts(app, release, path, environment).items():
        write_file(os.path.join(path, script), text, 0o700)
    return warnings


def _images(
    resolved: Mapping[str, Any], wanted: Wanted, source: str, environment: Mapping[str, str], server: str, login: Login,
    client: Sequence[str], lock: int | None,
) -> dict[str, str]:  # fmt: skip
    """Fetch and build; the id of each service's image, which a tag of ours keeps."""
    app, release = wanted.app, wanted.release
    fetched: set[str] = set()
    for reference, anew in app_compose.to_pull(resolved, wanted).values():
        here = not anew and app_container.docker("image", "inspect", "--format={{.Id}}", reference)[0] == 0
        if not here and reference not in fetched:
            pull(app, reference, server, login, client, lock)
        fetched.add(reference)
    building = app_compose.to_build(resolved, app, release)
    if building["services"]:
        file = os.path.join(os.path.dirname(source), "build.json")
        write_file(file, json.dumps(building), 0o600)
        folder = client[client.index("--config") + 1]
        words = [*command(app), "-p", app, "-f", file, "build", *sorted(building["services"])]
        code, output = run(
            None, words, cwd=source, timeout=BUILD_TIMEOUT, lock=lock, extra={**QUIET, "DOCKER_CONFIG": folder}
        )
        os.unlink(file)
        if code != 0:
            output = app_env.scrub(output, {**environment, "registry.PASSWORD": login.password})
            raise AppError(
                app, "build", f"Compose could not build its images (exit {code}). Its last lines:\n{last_lines(output)}"
            )
    images = {}
    for service, row in resolved["services"].items():
        ours = app_compose.tag(app, service, release)
        reference = ours if row.get("build") else str(row["image"])
        code, said = app_container.docker("image", "inspect", "--format={{.Id}}", reference)
        if code == 0 and reference != ours:
            code, said_of_tag = app_container.docker("tag", reference, ours)
            said = said if code == 0 else said_of_tag
        if code != 0:
            raise AppError(
                app, "build", f"cannot keep the image {reference} of service {service}:\n{last_lines(said, 5)}"
            )
        images[service] = said.strip()
    return images


def scripts(
    app: Mapping[str, Any], release: str, path: str, environment: Mapping[str, str] | None = None
) -> dict[str, str]:
    """What the units and the steps to come run, each for itself: as of a container app, but by Compose."""
    name, file = app["name"], shlex.quote(os.path.join(path, FILE))
    service = shlex.quote(app["container"]["service"])
    create = CREATE.format(app=name, file=file, service=service, published=app_compose.PUBLISHED)
    facts = {"app": name, "release": release}
    found = {
        app_container.START: app_container.SERVICE.format(
            **facts,
            name=name + "-$1",
            usage="Starts COLOUR at ADDRESS:PORT.",
            exports=CALL + create,
            start='begin "$@"',
        )
    }
    for each, line in app_container.once(app).items():
        words = " ".join(shlex.quote(word) for word in app_container.words(line))
        direct = app_env.past_the_pooler(each, environment or {})
        own = "-e DATABASE_URL " if direct else ""
        run_it = f'$compose -p {name} -f {file} run --rm --no-deps -T {own}--name "$name" {service} {words}'
        exports = CALL + (app_container.export_lines({"DATABASE_URL": direct}) if direct else "")
        found[each] = app_container.ONCE.format(
            **facts, name=f"{name}-{each}", usage="Runs to its end.", exports=exports, start=run_it
        )
    return found


def run_once(app: str, release: Release, script: str, patience: int, lock: int | None) -> tuple[int, str]:
    """Run a script of the release to its end, after one that an interrupted run has left."""
    code, output = app_container.run_once(app, release.path, script, patience, lock)
    return code, without_chatter(output)


# ---- the services beside the web one


class Running:
    """A container of a service, as the engine tells of it."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        state = told["State"]
        self.id = str(told["Id"])
        self.service = str(told["Config"]["Labels"].get("com.docker.compose.service"))
        self.status, self.exit_code = str(state["Status"]), int(state["ExitCode"])
        self.health = str((state.get("Health") or {}).get("Status") or "")
        self.restarts = int(told.get("RestartCount") or 0)


def running(app: str, services: Iterable[str] | None = None) -> list[Running]:
    """The containers of an app's services, its web one aside; those of some services only, when named."""
    project = ("--filter", f"label=com.docker.compose.project={app}", "--filter", f"label=shipshape.app={app}")
    code, said = app_container.docker("ps", "--all", "--quiet", "--no-trunc", *project)
    if code != 0 or not said.split():
        return []
    code, said = app_container.docker("inspect", "--type=container", *said.split())
    try:
        told = json.loads(said[said.index("[") : said.rindex("]") + 1])
    except ValueError:
        return []
    others = [entry for entry in told if not {"shipshape.release", "shipshape.colour"} & set(entry["Config"]["Labels"])]
    found = [Running(entry) for entry in others]
    return found if services is None else [each for each in found if each.service in set(services)]


def missing(app: str, release: Release) -> list[str]:
    """The services of a release that have no container, or one that does not run though it should."""
    there = running(app)
    may_end = set(read(release).get(app_compose.NOTES, {}).get("may_end", []))
    up = {each.service for each in there if each.status in ("running", "restarting", "paused")}
    up |= {each.service for each in there if each.service in may_end}
    return [service for service in rest_of(release) if service not in up]


def problems(app: Mapping[str, Any], store: Store, live: Release | None) -> list[str]:
    """Why the services of the live release are not what they should be."""
    if live is None or not rest_of(live):
        return []
    shown = _shown(store)
    if shown != live.id:
        return [f"its other services are those of release {shown or 'none'}"]
    down = missing(app["name"], live)
    return [f"its service {', '.join(down)} is not running"] if down else []


def _note(store: Store, release: Release) -> None:
    """Before anything is done: a run that is killed then is known to have begun."""
    write_record(os.path.join(store.directory, "services.json"), {"release": release.id})


def _shown(store: Store) -> str:
    """The release whose services run, as far as that was brought to its end."""
    return str((read_record(os.path.join(store.directory, "services.json")) or {}).get("release") or "")


def ensure(app: Mapping[str, Any], store: Store, release: Release, patience: int) -> tuple[str, str]:
    """Start the services that a release needs and that do not run at all; the others stay as they are."""
    down = missing(app["name"], release)
    if down:
        _note(store, release)
    return _up(app["name"], release, down, patience)


def bring(app: Mapping[str, Any], store: Store, release: Release, patience: int) -> tuple[str, str]:
    """Have the services be those of a release. (Nothing or what is wrong, the last lines of the service)."""
    _note(store, release)
    return _up(app["name"], release, rest_of(release), patience)


def _up(app: str, release: Release, services: Sequence[str], patience: int) -> tuple[str, str]:
    if not services:
        return "", ""
    before = {each.id for each in running(app) if each.status == "running"}
    code, said = compose(app, release, "up", "--detach", "--no-build", "--no-deps", *services, timeout=patience + 300)
    if code != 0:
        return f"the services {', '.join(services)} do not start", last_lines(said)
    return settled(app, release, before, services, patience)


def settled(
    app: str, release: Release, before: set[str], services: Sequence[str], patience: int
) -> tuple[str, str]:  # fmt: skip
    """Wait until what was started anew has stayed up, and is healthy where the file says how to tell."""
    may_end = set(read(release).get(app_compose.NOTES, {}).get("may_end", []))
    began = time.monotonic()
    while True:
        fresh = [each for each in running(app, services) if each.id not in before]
        waiting = ""
        for each in fresh:
            ended = each.status in ("exited", "dead") and not (each.service in may_end and each.exit_code == 0)
            if ended or each.restarts or each.status == "restarting":
                # One that the engine has just started again has no exit status to tell.
                up = each.status == "running"
                why = f"its service {each.service} ended {'again and again' if up else f'(exit {each.exit_code})'}"
                if each.exit_code == 0 and not up:
                    why += ', and is started again and again; say `restart: "no"` of one that is meant to end'
                return why, logs(release, each)
            if each.health == "unhealthy":
                return f"its service {each.service} is unhealthy", logs(release, each)
            if each.health == "starting" or each.status not in ("running", "exited"):
                waiting = each.service
        passed = time.monotonic() - began
        if not waiting and (not fresh or passed >= SETTLED):
            return "", ""
        if passed > max(patience, SETTLED):
            each = next(each for each in fresh if each.service == waiting)
            return f"its service {waiting} is not healthy after {patience} seconds", logs(release, each)
        time.sleep(0.5)


def logs(release: Release, container: Running) -> str:
    _code, said = app_container.docker("logs", "--tail=20", container.id)
    return str(app_env.scrub(last_lines(said), app_compose.values_of(read(release))))


def give_back(app: Mapping[str, Any], store: Store, live: Release, patience: int) -> str:
    """After a release that was given up, have the services be those of the one that serves. What is wrong with that."""
    problem = ""
    if _shown(store) != live.id or missing(app["name"], live):
        problem, _log = bring(app, store, live, patience)
    end_others(app, live)
    return problem


def end_others(app: Mapping[str, Any], live: Release | None) -> None:
    """End the services that a release does not have; of no release, all of them. Their volumes stay."""
    kept = set() if live is None else set(rest_of(live))
    gone = [each.id for each in running(app["name"]) if each.service not in kept]
    if gone:
        app_container.docker("stop", *gone, timeout=300)
        app_container.docker("rm", "--force", *gone)


def prune(store: Store) -> None:
    """Let go of files that no release mounts any more."""
    folder = files_directory(store)
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return
    texts = []
    for release in store.releases():
        with contextlib.suppress(OSError), open(os.path.join(release.path, FILE), encoding="utf-8") as stream:
            texts.append(stream.read())
    for name in names:
        if not any(f"{folder}/{name}/" in text for text in texts):
            shutil.rmtree(os.path.join(folder, name), ignore_errors=True)
