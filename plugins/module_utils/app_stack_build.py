"""Builds a release of an app that is a Compose file: resolved and built by Compose, transformed by Shipshape.

A release's folder has the code (`src`), the file that Compose works from later on (`compose.json`), and the scripts
that start the web service under a colour or run something once in its place.
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
from typing import Any, Mapping, Sequence

from ansible_collections.shipshape.droplet.plugins.module_utils import app_compose, app_container, app_env, app_registry
from ansible_collections.shipshape.droplet.plugins.module_utils.app_compose import Refused, Wanted
from ansible_collections.shipshape.droplet.plugins.module_utils.app_registry import Image, Login
from ansible_collections.shipshape.droplet.plugins.module_utils.app_stack import FILE, QUIET, command, files_directory
from ansible_collections.shipshape.droplet.plugins.module_utils.app_store import Store
from ansible_collections.shipshape.droplet.plugins.module_utils.app_system import AppError, last_lines, run, write_file

BUILD_TIMEOUT = 3600
#: What git keeps an empty folder by.
PLACEHOLDERS = {".gitkeep", ".gitignore", ".keep", ".empty"}

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


#: `--rm` of Compose takes a container that ends at once away before Compose has asked how it ended, and calls that a
#: failure (docker/compose#8968).
ONCE = (
    app_container.ONCE_BEGUN
    + """code=0
{start} || code=$?
docker rm --force --volumes "$name" >/dev/null
exit $code
"""
)


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
        run_it = f'$compose -p {name} -f {file} run --no-deps -T {own}--name "$name" {service} {words}'
        exports = CALL + (app_container.export_lines({"DATABASE_URL": direct}) if direct else "")
        found[each] = ONCE.format(
            **facts, name=f"{name}-{each}", usage="Runs to its end.", exports=exports, start=run_it
        )
    return found
