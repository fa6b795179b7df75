"""Releases of an app that is an image: fetched by its digest, run by systemd through Docker's client.

A release's folder has no code. Beside its record and environment it has a script for each thing that runs in a
container of its own: `container` for what answers requests, and what an app from git has, under the same names
(`process.NAME`, `cron.NAME`, `hook.MOMENT`, `migrate`, `seed`). So a way back starts just what ran then. An image stays
as long as a release needs it, by a tag of ours beside the app's own: `shipshape-APP-RELEASE`.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Iterator, Mapping, Sequence

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.shipshape.droplet.plugins.module_utils import app_disk, app_env, app_registry
from ansible_collections.shipshape.droplet.plugins.module_utils.app_registry import Image, Login, image_of
from ansible_collections.shipshape.droplet.plugins.module_utils.app_store import RELEASE_ID, Store
from ansible_collections.shipshape.droplet.plugins.module_utils.app_system import (
    AppError,
    last_lines,
    run,
    write_file,
)
from ansible_collections.shipshape.droplet.plugins.module_utils.app_types import IMAGE_TYPES, SQL_PROGRAM

STATE = "/var/lib/shipshape"
#: Root's, and gone with the next boot.
LOGINS = "/run/shipshape"
ATTEMPTS = 3
#: Whom this host trusts; there as soon as the package ca-certificates is.
AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
#: Docker's client reads no line longer than this from a file of variables.
LONGEST_LINE = 32768
#: As many processes and threads as any honest service has.
PROCESSES = 2048

START, VARIABLES = "container", "container.env"
#: SQL migrations, copied out of the image: in a release, and where the program that applies them sees them.
SQL, SQL_SEEN_AT = "sql", "/run/shipshape/sql"
#: What that program is asked for by each script of an app from git.
SQL_SCRIPTS = {"migrate": "up", "unmigrate": "down"}

HEAD = """#!/bin/sh
# Written by Shipshape for release {release}. {usage}
set -eu
name={name}
ours() {{ docker ps --all --quiet --no-trunc --filter "name=^$name\\$" --filter label=shipshape.app={app} "$@"; }}
make_room() {{ left=$(ours); [ -z "$left" ] || docker rm --force --volumes $left >/dev/null; }}
{exports}"""
#: What goes on until it is stopped. An engine that starts anew keeps its containers running and lets go of its clients:
#: then the script goes on with the same one, and its unit knows nothing of it, nor do those that restart with that.
SERVICE = (
    HEAD
    + """running() {{ ours --filter label=shipshape.release={release} --filter status=running; }}
code=0 patience=60
if [ -z "$(running)" ]; then
    make_room
    {start} || code=$?
fi
while :; do
    if ! found=$(running); then
        patience=$((patience - 1))
        [ $patience -gt 0 ] || exit 1
        sleep 1
    elif [ -z "$found" ]; then
        exit $code
    else
        code=0
        docker attach --no-stdin "$name" || code=$?
    fi
done
"""
)
#: What comes to its end by itself. Should one still be at it, of whichever release, that one is waited for instead.
ONCE_BEGUN = (
    HEAD
    + """if [ -n "$(ours --filter status=running)" ]; then exec docker attach --no-stdin "$name"; fi
make_room
"""
)
ONCE = ONCE_BEGUN + "exec {start}\n"


def logins(module: AnsibleModule, sealed: str) -> dict[str, Login]:
    """The logins for registries by app; their passwords are kept out of all that the module says."""
    found = {app: Login(str(said["username"]), str(said["password"])) for app, said in app_env.unseal(sealed).items()}
    for login in found.values():
        module.no_log_values.update({login.password, login.basic} if login.password else ())
    return found


def wanted_digests(apps: list[dict[str, Any]], logins: Mapping[str, Login], check_mode: bool) -> dict[str, str]:
    """Which image each container app's version stands for; every registry is asked at the same time.

    Nothing for an app whose registry cannot be asked yet: on a bare host, in check mode, no authority is trusted.
    """
    asked = [app for app in apps if app["type"] == "container"]
    if check_mode and not os.path.exists(AUTHORITIES):
        return {app["name"]: app_registry.digest_of(app["version"]).partition(":")[2] for app in asked}

    def digest(app: dict[str, Any]) -> str:
        login = logins.get(app["name"], Login())
        found = app_registry.resolve(app["name"], app["container"]["image"], app["version"], login)
        return str(found).partition(":")[2]

    with ThreadPoolExecutor(max_workers=8) as pool:
        jobs = {app["name"]: pool.submit(digest, app) for app in asked}
        return {name: job.result() for name, job in jobs.items()}


def words(text: str) -> list[str]:
    """What a command line gives to the image, as a shell would split it."""
    return shlex.split(text)


def split_environment(environment: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """What a file of variables can hold, and what Docker's client has to get from its own environment."""
    fit = {name: value for name, value in environment.items() if "\n" not in value and len(value) < LONGEST_LINE}
    return fit, {name: value for name, value in environment.items() if name not in fit}


def variables_file(environment: Mapping[str, str]) -> str:
    """The text of an --env-file: nothing is quoted in it, and a line is a value to its end."""
    return "".join(f"{name}={value}\n" for name, value in sorted(environment.items()))


def export_lines(environment: Mapping[str, str]) -> str:
    """What a script exports for the client that it calls: an argument could be read by others."""
    return "".join(f"export {key}={shlex.quote(value)}\n" for key, value in sorted(environment.items()))


def mounts(app: str, container: Mapping[str, Any]) -> list[str]:
    """Folders of the droplet that outlive a release, as volumes: a new one gets the owner that it has in the image."""
    found = []
    for target, name in sorted((container.get("volumes") or {}).items()):
        place = f"volume-opt=type=none,volume-opt=o=bind,volume-opt=device={STATE}/{app}/{name}"
        found.append(f"--mount=type=volume,source=shipshape-{app}-{name},target={target},volume-driver=local,{place}")
    return found + [f"--mount=type=bind,source={path},target={path}" for path in container.get("sockets") or []]


def options(app: str, release: str, container: Mapping[str, Any], path: str, exported: Sequence[str]) -> list[str]:
    """What every container of a release is started with."""
    found = ["--pull=never", "--init", f"--label=shipshape.app={app}", f"--label=shipshape.release={release}"]
    found += ["--cap-drop=ALL", *(f"--cap-add={name}" for name in container.get("capabilities") or [])]
    found += ["--security-opt=no-new-privileges", f"--pids-limit={PROCESSES}"]
    if container.get("memory"):
        found.append("--memory={}".format(container["memory"]))
    if container.get("cpus"):
        found.append("--cpus={:g}".format(container["cpus"]))
    found.append(f"--env-file={os.path.join(path, VARIABLES)}")
    return found + [f"--env={name}" for name in exported] + mounts(app, container)


def once(app: Mapping[str, Any]) -> dict[str, str]:
    """What an app has run to its end, by the name of the script."""
    commands = {name: str(app[name]) for name in ("migrate", "seed") if app[name]}
    commands.update({"hook." + moment: str(command) for moment, command in app["hooks"].items()})
    commands.update({"cron." + entry["name"]: str(entry["command"]) for entry in app["cron"]})
    return commands


def scripts(app: Mapping[str, Any], release: str, digest: str, path: str, env: Mapping[str, str]) -> dict[str, str]:
    """The files with which a release is run, by name; all of them may hold secrets."""
    name, container = app["name"], app["container"]
    fit, exported = split_environment(env)
    image = f"{container['image']}@sha256:{digest}"

    def script(text: str, usage: str, called: str, own: Sequence[str], command: str, direct: str = "",
               **limits: Any) -> str:  # fmt: skip
        given = {**container, **{key: value for key, value in limits.items() if value}}
        known = {**exported, **({"DATABASE_URL": direct} if direct else {})}
        arguments = ['--name="$name"', *map(shlex.quote, options(name, release, given, path, sorted(known))), *own]
        arguments += map(shlex.quote, [image, *words(command)])
        facts = {"app": name, "release": release, "name": called, "usage": usage, "exports": export_lines(known)}
        return text.format(**facts, start=" ".join(["docker run", *arguments]))

    # Without --rm: some engines remove what was started with it when they start anew, though it runs.
    colour = '--label=shipshape.colour="$1"'
    port = [f'${{2:+"--publish=$2:{int(container["port"])}"}}'] if container.get("port") else []
    files = {VARIABLES: variables_file(fit)}
    files[START] = script(SERVICE, "Starts COLOUR at ADDRESS:PORT.", f"{name}-$1", [colour, *port], app["command"])
    for each in app["processes"]:
        called = name + "." + each["name"] + "${2:+-$2}-$1"
        limits = {key: each.get(key) for key in ("memory", "cpus")}
        usage = "Starts COLOUR, the NUMBER-th beside others."
        files["process." + each["name"]] = script(SERVICE, usage, called, [colour], each["command"], **limits)
    for each, command in once(app).items():
        direct = app_env.past_the_pooler(each, env)
        files[each] = script(ONCE, "Runs to its end.", f"{name}-{each}", ["--rm"], command, direct)
    return files


@contextlib.contextmanager
def client(app: str, image: Image, login: Login) -> Iterator[list[str]]:
    """Docker's client with the login of one app for one registry, as long as it takes; what root has is not used."""
    folder = os.path.join(LOGINS, f"login-{app}")
    os.makedirs(LOGINS, mode=0o755, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)  # of a run that was killed
    os.mkdir(folder, 0o700)
    try:
        write_file(os.path.join(folder, "config.json"), app_registry.docker_config(image, login), 0o600)
        yield ["docker", "--config", folder]
    finally:
        shutil.rmtree(folder)


def docker(*arguments: str, timeout: int = 120) -> tuple[int, str]:
    result: tuple[int, str] = run(None, ["docker", *arguments], timeout=timeout)
    return result


def explain(output: str, name: str, digest: str, login: Login) -> str:
    """What to do about the usual reasons for which an image cannot be fetched."""
    said, image = output.lower(), image_of(name)
    if "cannot connect to the docker daemon" in said:
        return "the Docker engine does not answer; see `systemctl status docker` on the droplet"
    if "no such file or directory: 'docker'" in said:
        return "Docker is not installed here; run playbooks/docker.yml"
    if "no space left on device" in said:
        return "there is no room for it; see `docker system df`"
    if "verification failed" in said or "does not match" in said:
        return f"{image.host} sent something else than the image of this digest; it was not taken. Push the image again"
    if "manifest unknown" in said or "not found" in said:
        return f"{image.host} has no such image any more; check `image`"
    if any(word in said for word in ("unauthorized", "denied", "authentication required", "no basic auth")):
        return str(app_registry.refusal(name, f"sha256:{digest}", login, image))
    if "x509" in said or "certificate" in said:
        return f"the engine does not trust the certificate of {image.host}; add its authority to the droplet"
    return f"check that the droplet reaches {image.host}, and try again"


def tag_of(name: str, app: str, release: str) -> str:
    """The tag of ours that keeps an image as long as the release is kept."""
    return f"{name}:shipshape-{app}-{release}"


def pull(app: str, release: str, name: str, digest: str, login: Login, lock: int | None) -> None:
    """Have the image of that digest on this host, and keep it for the release."""
    reference = f"{name}@sha256:{digest}"
    output = ""
    if docker("image", "inspect", "--format={{.Id}}", reference)[0] != 0:
        with client(app, image_of(name), login) as command:
            for attempt in range(ATTEMPTS):
                if attempt:
                    time.sleep(3 * attempt)
                code, output = run(None, [*command, "pull", "--quiet", reference], timeout=1800, lock=lock)
                final = ("manifest unknown", "unauthorized", "denied")
                if code == 0 or app_disk.is_full(output) or any(words in output for words in final):
                    break
        if code != 0:
            output = output.replace(login.password, app_env.HIDDEN) if login.password else output
            why = explain(output, name, digest, login)
            raise AppError(app, "pull", f"cannot fetch {reference}: {why}\n{last_lines(output, 5)}")
    code, output = docker("tag", reference, tag_of(name, app, release))
    if code != 0:
        raise AppError(app, "pull", f"cannot keep {reference}:\n{last_lines(output, 5)}")


def make_volumes(app: str, container: Mapping[str, Any]) -> None:
    """The folders behind the volumes. Nobody but root comes to them on the droplet; whose they are says the image."""
    for name in (container.get("volumes") or {}).values():
        parent = os.path.join(STATE, app)
        os.makedirs(STATE, mode=0o755, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkdir(parent, 0o700)
        with contextlib.suppress(FileExistsError):
            os.mkdir(os.path.join(parent, name), 0o755)


def copy_sql(app: str, image: str, folder: str, target: str) -> None:
    """Take the SQL migrations out of an image, for the program of the droplet; nothing of the image runs for that."""
    name = f"{app}-sql"
    docker("rm", "--force", "--volumes", name)  # of a run that was killed
    try:
        code, output = docker("create", "--pull=never", f"--name={name}", f"--label=shipshape.app={app}", image, "none")
        if code == 0:
            code, output = docker("cp", f"{name}:{folder}", target)
    finally:
        docker("rm", "--force", "--volumes", name)
    if code != 0 or not os.path.isdir(target):
        why = last_lines(output, 5)
        raise AppError(app, "build", f"{image} has no folder {folder}, as `migrate.sql` says it has:\n{why}")
    os.chmod(target, 0o755)
    for entry in os.scandir(target):
        # A link would lead to a file of the droplet; of folders there is nothing to apply.
        if entry.is_file(follow_symlinks=False):
            os.chmod(entry.path, 0o644)
        elif entry.is_symlink():
            raise AppError(app, "build", f"{folder}/{entry.name} in {image} is a link; put the file itself there")


def has_sql(path: str) -> bool:
    """Whether a release has SQL migrations that were copied out of its image."""
    return os.path.isdir(os.path.join(path, SQL))


def sql_properties(path: str) -> list[str]:
    """How the program that applies them is run: by nobody in particular, who sees them and else no release."""
    os.makedirs(SQL_SEEN_AT, mode=0o755, exist_ok=True)
    seen = f"BindReadOnlyPaths={os.path.join(path, SQL)}:{SQL_SEEN_AT}"
    return ["DynamicUser=yes", seen, "WorkingDirectory=" + SQL_SEEN_AT]


def sql_command(script: str, release: str) -> list[str]:
    """What applies them, or takes back what this release does not know."""
    return ["python3", SQL_PROGRAM, SQL_SCRIPTS[script], ".", *([release] if script == "migrate" else [])]


def build(app: Mapping[str, Any], release: str, path: str, digest: str, env: Mapping[str, str], login: Login,
          lock: int | None) -> None:  # fmt: skip
    """All that a release is run from, into its folder."""
    pull(app["name"], release, app["container"]["image"], digest, login, lock)
    make_volumes(app["name"], app["container"])
    for name, text in scripts(app, release, digest, path, env).items():
        write_file(os.path.join(path, name), text, 0o600 if name == VARIABLES else 0o700)
    if app["migrate_sql"]:
        image = "{image}@sha256:{}".format(digest, **app["container"])
        copy_sql(app["name"], image, app["migrate_sql"], os.path.join(path, SQL))


def run_once(app: str, path: str, script: str, patience: int, lock: int | None) -> tuple[int, str]:
    """Run one of a release's scripts to its end, after one that an interrupted run has left."""
    name = f"{app}-{script}"
    ours = ("--filter", f"name=^{name}$", "--filter", f"label=shipshape.app={app}")
    code, left = docker("ps", "--quiet", *ours)
    if code == 0 and left:
        docker("wait", name, timeout=patience)
    code, output = run(None, [os.path.join(path, script)], timeout=patience, lock=lock)
    if code == 124:
        docker("rm", "--force", "--volumes", name)
    return code, output


def tables(app: str, colour: str) -> list[str]:
    """Where the kernel lists the connections to a container: in the container's own network, under its own port."""
    code, output = docker("inspect", "--format={{.State.Pid}}", f"{app}-{colour}")
    process = output.strip() if code == 0 else ""
    return [f"/proc/{process}/net/{table}" for table in ("tcp", "tcp6")] if process.isdigit() and process != "0" else []


def end_beside(app: str, colour: str, patience: int) -> None:
    """End what runs of a colour beside its web process, of units that were stopped while the engine was away."""
    ours = ("--filter", f"label=shipshape.app={app}", "--filter", f"label=shipshape.colour={colour}")
    code, output = docker("ps", "--all", *ours, "--format={{.Names}}")
    left = [name for name in output.split() if name != f"{app}-{colour}"] if code == 0 else []
    if left:
        docker("stop", f"--time={patience}", *left, timeout=patience + 60)
        docker("rm", "--force", "--volumes", *left)


def clear(app: str, store: Store) -> None:
    """End what runs of the colour that does not serve: of a unit that was stopped while the engine was away."""
    code, output = docker(
        "ps", "--all", "--filter", f"label=shipshape.app={app}", '--format={{.ID}} {{.Label "shipshape.colour"}}'
    )
    rows = [line.split() for line in output.splitlines()] if code == 0 else []
    idle = [row[0] for row in rows if len(row) == 2 and row[1] != store.colour]
    if idle:
        docker("rm", "--force", "--volumes", *idle)


def unneeded(listing: str, app: str, releases: Sequence[str]) -> list[str]:
    """Of all images' names, those that were kept for releases of this app that are not there any more."""
    mine = re.compile(rf"\S+:shipshape-{re.escape(app)}-({RELEASE_ID.pattern})")
    found = [(line, mine.fullmatch(line.strip())) for line in listing.splitlines()]
    return [line.strip() for line, match in found if match and match.group(1) not in releases]


def images() -> str | None:
    """The names of all images on this host; nothing where no engine answers."""
    code, output = docker("image", "ls", "--format={{.Repository}}:{{.Tag}}")
    return output if code == 0 else None


def lost(apps: Sequence[Mapping[str, Any]]) -> list[str]:
    """The apps whose live release has lost its image: to a clean-up by hand, or as the engine maps its users anew."""
    live = {}
    for app in apps:
        store = Store(app["name"], app["directory"])
        release = store.release(store.current)
        made_of = release.record.get("container") if release else None
        if app["type"] in IMAGE_TYPES and release and made_of:
            live[app["name"]] = f"shipshape-{app['name']}-{release.id}"
    listing = images() if live else None
    # By the tag alone: Docker leaves its own registry out of a name.
    tags = {line.rpartition(":")[2] for line in (listing or "").splitlines()}
    return [] if listing is None else [name for name, tag in live.items() if tag not in tags]


def prune(app: str, store: Store) -> list[str]:
    """Let go of images that no release needs. One that somebody else has a name or a container for stays."""
    clear(app, store)
    names = unneeded(images() or "", app, [release.id for release in store.releases()])
    for name in names:
        docker("image", "rm", name)
    return names
