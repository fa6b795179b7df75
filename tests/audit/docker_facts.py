"""What the Docker checks need to know of a machine, printed as JSON. Runs there, by itself, on Python 3.9 and later."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys

FILES = (
    "/etc/docker",
    "/etc/docker/daemon.json",
    "/etc/default/docker",
    "/etc/sysconfig/docker",
    "/etc/containerd/config.toml",
    "/run/containerd",
    "/run/containerd/containerd.sock",
    "/run/docker.sock",
    "/var/lib/docker",
)
PROGRAMS = ("dockerd", "containerd", "containerd-shim", "containerd-shim-runc-v1", "containerd-shim-runc-v2", "runc")
UNITS = ("docker.service", "docker.socket")
CERTIFICATES = "/etc/docker/certs.d"
RULES = "/etc/audit/rules.d"


def output(*command: str) -> str:
    try:
        result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""


def content(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read()
    except OSError:
        return ""


def look(path: str) -> dict[str, object] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return {
        "owner": output("stat", "-L", "-c", "%U:%G", path),
        "mode": stat.S_IMODE(found.st_mode),
        "mount": os.path.ismount(path),
    }


def program(name: str) -> str:
    """Where the program really is: on a merged /usr, /usr/bin/runc may be a link to /usr/sbin/runc."""
    path = next((f"{folder}/{name}" for folder in ("/usr/bin", "/usr/sbin") if os.path.exists(f"{folder}/{name}")), "")
    return os.path.realpath(path) if path else ""


def audit_rules() -> dict[str, object]:
    loaded = output("auditctl", "-l")
    if loaded:
        return {"from": "the kernel", "text": loaded}
    names = sorted(os.listdir(RULES)) if os.path.isdir(RULES) else []
    return {"from": RULES, "text": "\n".join(content(f"{RULES}/{name}") for name in names if name.endswith(".rules"))}


def command_line() -> list[str]:
    for entry in os.listdir("/proc"):
        if entry.isdigit() and content(f"/proc/{entry}/comm").strip() == "dockerd":
            return content(f"/proc/{entry}/cmdline").split("\0")[1:]
    return []


def main() -> int:
    info = output("docker", "info", "--format", "{{json .}}")
    if not info:
        print("null")
        return 0
    units = {unit: output("systemctl", "show", "--property=FragmentPath", "--value", unit) for unit in UNITS}
    programs = {name: program(name) for name in PROGRAMS}
    certificates = [f"{folder}/{name}" for folder, _, names in os.walk(CERTIFICATES) for name in names]
    paths = {*FILES, *units.values(), *programs.values(), *certificates} - {""}
    daemon = json.loads(content("/etc/docker/daemon.json") or "{}")
    paths |= {str(daemon[key]) for key in ("tlscacert", "tlscert", "tlskey") if key in daemon}
    containers = output("docker", "ps", "--quiet", "--no-trunc").split()
    facts = {
        "info": json.loads(info),
        "experimental": output("docker", "version", "--format", "{{.Server.Experimental}}"),
        "daemon": daemon,
        "arguments": command_line(),
        "audit": audit_rules(),
        "units": units,
        "programs": programs,
        "certificates": sorted(certificates),
        "paths": {path: look(path) for path in sorted(paths)},
        "group": output("getent", "group", "docker").rpartition(":")[2],
        "containers": json.loads(output("docker", "inspect", *containers) or "[]") if containers else [],
    }
    json.dump(facts, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
