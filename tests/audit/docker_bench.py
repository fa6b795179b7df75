"""The checks of the CIS Docker Benchmark 1.6 that docker-bench makes: host, daemon, its files, running containers.

docker-bench-security itself is a set of shell scripts that neither Debian nor Ubuntu packages. So these are
our own, written from the benchmark: its sections 1, 2, 3 and 5, as far as they can be decided without a human, under
its numbers and with docker-bench's notion of a warning. Section 4 asks about images and 7 about a swarm: a droplet that
has been set up and runs nothing yet has neither.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.audit.model import AuditError, Finding, Result
from tests.audit.target import Target

NAME = "docker"
MOST_WARNINGS = 2
FACTS = Path(__file__).with_name("docker_facts.py")

Facts = dict[str, Any]
#: Number, title, and what is wrong; nothing is wrong with an empty text, and None means that there is nothing to check.
Check = tuple[str, str, str | None]


def run(target: Target, raw: Path) -> Result:
    found = target.root("exec python3 -", FACTS.read_bytes())
    (raw / "docker.json").write_bytes(found)
    facts: Facts | None = json.loads(found)
    if facts is None:
        raise AuditError("Docker does not answer on the droplet")
    return parse(facts)


def parse(facts: Facts) -> Result:
    checks = [*host(facts), *daemon(facts), *files(facts), *containers(facts)]
    warnings = [Finding(number, title, "CIS Docker", wrong) for number, title, wrong in checks if wrong]
    passed = sum(wrong == "" for _, _, wrong in checks)
    skipped = len(checks) - passed - len(warnings)
    return Result(
        NAME,
        f"Docker {facts['info']['ServerVersion']}, CIS benchmark sections 1, 2, 3, 5 (checks of our own)",
        f"{passed} pass, {len(warnings)} warnings, {skipped} not applicable",
        f"≤ {MOST_WARNINGS} warnings, each waived",
        len(warnings) <= MOST_WARNINGS,
        tuple(warnings),
    )


# ---- section 1: the host


def host(facts: Facts) -> Iterator[Check]:
    root = facts["info"]["DockerRootDir"]
    state = facts["paths"].get("/var/lib/docker") or {}
    yield "1.1.1", "A separate partition for containers", "" if state.get("mount") else f"{root} is not a mount point"
    members = facts["group"]
    yield "1.1.2", "Only trusted users control the daemon", f"in the group docker: {members}" if members else ""
    for number, path in audited(facts):
        title = f"Auditing is configured for {path or 'a file that is not here'}"
        yield number, title, None if not facts["paths"].get(path) else unwatched(facts["audit"], path)


def audited(facts: Facts) -> list[tuple[str, str]]:
    programs, units = facts["programs"], facts["units"]
    return [
        ("1.1.3", programs["dockerd"]),
        ("1.1.4", "/run/containerd"),
        ("1.1.5", "/var/lib/docker"),
        ("1.1.6", "/etc/docker"),
        ("1.1.7", units["docker.service"]),
        ("1.1.8", "/run/containerd/containerd.sock"),
        ("1.1.9", units["docker.socket"]),
        ("1.1.10", "/etc/default/docker"),
        ("1.1.11", "/etc/docker/daemon.json"),
        ("1.1.12", "/etc/containerd/config.toml"),
        ("1.1.13", "/etc/sysconfig/docker"),
        ("1.1.14", programs["containerd"]),
        ("1.1.15", programs["containerd-shim"]),
        ("1.1.16", programs["containerd-shim-runc-v1"]),
        ("1.1.17", programs["containerd-shim-runc-v2"]),
        ("1.1.18", programs["runc"]),
    ]


def unwatched(audit: dict[str, str], path: str) -> str:
    """A rule must name the very path; docker-bench does not take the folder above for it, either."""
    return "" if plain(path) in watched(audit["text"]) else f"no rule names it (rules of {audit['from']})"


def watched(rules: str) -> set[str]:
    """The paths of `-w PATH`, `-F path=PATH` and `-F dir=PATH`; comments and what is taken away again do not count."""
    found = set()
    for line in rules.splitlines():
        words = shlex.split(line, comments=True)
        for before, word in zip(words, words[1:], strict=False):
            if before == "-w":
                found.add(plain(word))
            elif before == "-F" and word.partition("=")[0] in ("path", "dir"):
                found.add(plain(word.partition("=")[2]))
    return found


def plain(path: str) -> str:
    """/lib and /var/run are links to /usr/lib and /run on every system that boots systemd today."""
    path = path.rstrip("/")
    if path.startswith(("/lib/", "/bin/", "/sbin/")):
        return f"/usr{path}"
    return path.removeprefix("/var") if path.startswith("/var/run/") else path


# ---- section 2: the daemon


def option(facts: Facts, name: str, flag: str = "") -> Any:
    """What daemon.json or, failing that, the command line says; the daemon refuses to start when both do."""
    if name in facts["daemon"]:
        return facts["daemon"][name]
    flag = f"--{flag or name}"
    arguments: Sequence[str] = facts["arguments"]
    for position, argument in enumerate(arguments):
        if argument == flag:
            following = arguments[position + 1 : position + 2]
            return following[0] if following and not following[0].startswith("-") else True
        if argument.startswith(f"{flag}="):
            return argument.partition("=")[2]
    return None


def enabled(value: Any) -> bool:
    return value is True or str(value).lower() == "true"


def disabled(value: Any) -> bool:
    return value is False or str(value).lower() == "false"


def hosts(facts: Facts) -> list[str]:
    """Every address the daemon listens on: -H may be given several times."""
    given = list(facts["daemon"].get("hosts", ()))
    arguments: Sequence[str] = facts["arguments"]
    given += [word for flag, word in zip(arguments, arguments[1:], strict=False) if flag in ("-H", "--host")]
    return given + [word.partition("=")[2] for word in arguments if word.startswith(("--host=", "-H="))]


def daemon(facts: Facts) -> Iterator[Check]:
    info = facts["info"]
    security = " ".join(info.get("SecurityOptions") or ())

    def check(number: str, title: str, good: bool, wrong: str) -> Check:
        return number, title, "" if good else wrong

    yield check("2.2", "No traffic between containers by default", disabled(option(facts, "icc")), "icc is on")
    level = option(facts, "log-level") or "info"
    yield check("2.3", "The logging level is info", level == "info", f"log-level is {level}")
    yield check("2.4", "Docker may change iptables", not disabled(option(facts, "iptables")), "iptables is off")
    insecure = option(facts, "insecure-registries", "insecure-registry")
    yield check("2.5", "No insecure registries", not insecure, f"insecure-registries: {insecure}")
    yield check("2.6", "Not the aufs storage driver", info["Driver"] != "aufs", "the driver is aufs")
    remote = [address for address in hosts(facts) if not address.startswith(("unix://", "fd://"))]
    verified = enabled(option(facts, "tlsverify"))
    yield "2.7", "TLS authentication on TCP", None if not remote else "" if verified else f"{remote} without tlsverify"
    yield check("2.9", "User namespaces are remapped", "name=userns" in security, "userns-remap is not set")
    parent = option(facts, "cgroup-parent")
    yield check("2.10", "The default cgroup is used", not parent, f"cgroup-parent is {parent}")
    storage = str(option(facts, "storage-opts", "storage-opt") or "")
    yield check("2.11", "The base device size is the default", "dm.basesize" not in storage, storage)
    plugins = option(facts, "authorization-plugins", "authorization-plugin")
    yield check("2.12", "An authorization plugin judges client commands", bool(plugins), "there is none")
    driver = info["LoggingDriver"]
    yield check("2.13", "Logs leave Docker's own files", driver != "json-file", f"the log driver is {driver}")
    fixed = enabled(option(facts, "no-new-privileges")) or "no-new-privileges" in security
    yield check("2.14", "Containers gain no new privileges", fixed, "no-new-privileges is off")
    swarm = info["Swarm"]["LocalNodeState"] == "active"
    yield check("2.15", "Live restore is on", bool(info["LiveRestoreEnabled"]) or swarm, "live-restore is off")
    yield check("2.16", "The userland proxy is off", disabled(option(facts, "userland-proxy")), "userland-proxy is on")
    yield check("2.17", "The seccomp profile is in force", "name=seccomp" in security, f"security options: {security}")
    experimental = facts["experimental"] or "unknown"
    yield check("2.18", "No experimental features", experimental == "false", f"experimental is {experimental}")
    yield check("5.1", "No swarm", not swarm, "swarm mode is active")


# ---- section 3: files


def files(facts: Facts) -> Iterator[Check]:
    units, paths = facts["units"], facts["paths"]
    tls = [str(option(facts, name) or "") for name in ("tlscacert", "tlscert", "tlskey")]
    wanted = [
        (1, "docker.service", [units["docker.service"]], "root:root", 0o644),
        (3, "docker.socket", [units["docker.socket"]], "root:root", 0o644),
        (5, "/etc/docker", ["/etc/docker"], "root:root", 0o755),
        (7, "registry certificates", facts["certificates"], "root:root", 0o444),
        (9, "the TLS authority's certificate", [tls[0]], "root:root", 0o444),
        (11, "the server's certificate", [tls[1]], "root:root", 0o444),
        (13, "the server's key", [tls[2]], "root:root", 0o400),
        (15, "the Docker socket", ["/run/docker.sock"], "root:docker", 0o660),
        (17, "daemon.json", ["/etc/docker/daemon.json"], "root:root", 0o644),
        (19, "/etc/default/docker", ["/etc/default/docker"], "root:root", 0o644),
        (21, "/etc/sysconfig/docker", ["/etc/sysconfig/docker"], "root:root", 0o644),
        (23, "the containerd socket", ["/run/containerd/containerd.sock"], "root:root", 0o660),
    ]
    for number, title, names, owner, mode in wanted:
        there = {name: paths[name] for name in names if paths.get(name)}
        strangers = [f"{name}: {state['owner']}" for name, state in there.items() if state["owner"] != owner]
        open_ones = [f"{name}: {state['mode']:o}" for name, state in there.items() if state["mode"] & ~mode]
        yield f"3.{number}", f"Owner of {title} is {owner}", ", ".join(strangers) if there else None
        yield f"3.{number + 1}", f"Mode of {title} is at most {mode:o}", ", ".join(open_ones) if there else None


# ---- section 5: running containers

SENSITIVE = ("/", "/boot", "/dev", "/etc", "/lib", "/proc", "/sys", "/usr")


def containers(facts: Facts) -> Iterator[Check]:
    """Each check once, naming the containers that fail it; without containers there is nothing to check."""
    named = {container["Name"].lstrip("/"): dict(faults(container)) for container in facts["containers"]}
    for number, title in RUNTIME.items():
        guilty = [f"{name} ({found[number]})" for name, found in named.items() if number in found]
        yield number, title, ", ".join(guilty) if named else None


RUNTIME = {
    "5.2": "Containers run under an AppArmor profile",
    "5.4": "No capabilities are added",
    "5.5": "No container is privileged",
    "5.6": "No sensitive host directory is mounted",
    "5.8": "No privileged port is mapped",
    "5.10": "The host's network is not shared",
    "5.11": "Memory is limited",
    "5.12": "CPU shares are set",
    "5.13": "The root filesystem is read-only",
    "5.14": "Ports are bound to an address",
    "5.15": "Restarts are limited to five",
    "5.16": "The host's process namespace is not shared",
    "5.17": "The host's IPC namespace is not shared",
    "5.18": "No host device is exposed",
    "5.20": "Mounts are not propagated as shared",
    "5.21": "The host's UTS namespace is not shared",
    "5.22": "The seccomp profile is not switched off",
    "5.26": "Containers gain no new privileges",
    "5.27": "Health is checked",
    "5.29": "The number of processes is limited",
    "5.31": "The host's user namespace is not shared",
    "5.32": "The Docker socket is not mounted",
}


def faults(container: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Number and what was found, for each check that the container fails."""
    given = container["HostConfig"]
    options = given.get("SecurityOpt") or []
    mounts = container.get("Mounts") or []
    ports = [
        (port, row) for port, rows in (container["NetworkSettings"].get("Ports") or {}).items() for row in rows or ()
    ]
    restart = given.get("RestartPolicy") or {}
    sensitive = sorted(row["Source"] for row in mounts if row["Source"] in SENSITIVE)
    found = {
        "5.2": "none" if container.get("AppArmorProfile") in (None, "", "unconfined") else "",
        "5.4": ", ".join(given.get("CapAdd") or ()),
        "5.5": "privileged" if given.get("Privileged") else "",
        "5.6": ", ".join(sensitive),
        "5.8": ", ".join(sorted({row["HostPort"] for _, row in ports if int(row["HostPort"] or 0) < 1024})),
        "5.10": "host" if given.get("NetworkMode") == "host" else "",
        "5.11": "" if given.get("Memory") else "no limit",
        "5.12": "" if given.get("CpuShares") else "not set",
        "5.13": "" if given.get("ReadonlyRootfs") else "writable",
        "5.14": ", ".join(sorted({row["HostPort"] for _, row in ports if row["HostIp"] in ("", "0.0.0.0", "::")})),
        "5.15": restart_fault(restart),
        "5.16": "host" if given.get("PidMode") == "host" else "",
        "5.17": "host" if given.get("IpcMode") == "host" else "",
        "5.18": ", ".join(row["PathOnHost"] for row in given.get("Devices") or ()),
        "5.20": ", ".join(row["Source"] for row in mounts if row.get("Propagation") in ("shared", "rshared")),
        "5.21": "host" if given.get("UTSMode") == "host" else "",
        "5.22": "unconfined" if "seccomp=unconfined" in options or "seccomp:unconfined" in options else "",
        "5.26": "" if any(word.startswith("no-new-privileges") for word in options) else "not set",
        "5.27": "" if (container["State"].get("Health") or {}) else "no health check",
        "5.29": "" if (given.get("PidsLimit") or 0) > 0 else "no limit",
        "5.31": "host" if given.get("UsernsMode") == "host" else "",
        "5.32": "mounted" if any(row["Source"].endswith("/docker.sock") for row in mounts) else "",
    }
    yield from ((number, wrong) for number, wrong in found.items() if wrong)


def restart_fault(policy: dict[str, Any]) -> str:
    name, count = policy.get("Name") or "no", int(policy.get("MaximumRetryCount") or 0)
    limited = name == "no" or (name == "on-failure" and 0 < count <= 5)
    return "" if limited else f"{name}, {count or 'any number of'} times"
