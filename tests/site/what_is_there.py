"""Runs on a droplet: packages, units, firewall, databases and files, as lines that can be compared with another's.

Takes the parts that are wanted, by name; all without one.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import subprocess
import sys

#: What two droplets never have in common: keys, passwords and certificates of their own, and their names.
OF_ITS_OWN = re.compile(
    r"/etc/(ssh/ssh_host_.*|machine-id|hostname|hosts|resolv\.conf|ld\.so\.cache|.*-|\.pwd\.lock|letsencrypt/.+"
    r"|docker/key\.json|shipshape/(tls|postgresql|redis)/.+|redis/.+\.acl"
    r"|ssl/(private|certs)/ssl-cert-snakeoil.*|ssl/certs/[0-9a-f]{8}\.\d)"
    # Releases are named by the moment they were made.
    r"|/srv/[^/]+/.+/.*|.+/__pycache__/.+"
)
#: Where one of the lab's droplets finds its names.
RESOLVER = re.compile(r"DOCKER_(OUTPUT|POSTROUTING)|127\.0\.0\.11")
#: What runs for a moment now and then, and the very connection that asks.
PASSING = re.compile(r"(apt-|dpkg-|logrotate|man-db|e2scrub|systemd-tmpfiles|session-|user[@-]|run-|fstrim|motd)")
UNIT_TYPES = "--type=service,timer,socket"
ROLES = "SELECT rolname, rolsuper, rolcanlogin, rolconnlimit FROM pg_roles"


def said(*command: str) -> list[str]:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def packages() -> list[str]:
    return said("dpkg-query", "-W", "-f", "package ${Package} ${Version} ${db:Status-Abbrev}\n")


def units() -> list[str]:
    lines = said("systemctl", "list-unit-files", "--no-legend", "--no-pager", UNIT_TYPES)
    enabled = ["unit file " + " ".join(line.split()[:2]) for line in lines]
    lines = said("systemctl", "list-units", "--all", "--no-legend", "--no-pager", "--plain", UNIT_TYPES)
    return enabled + ["unit " + " ".join(line.split()[:3]) for line in lines if not PASSING.match(line)]


def firewall() -> list[str]:
    """Every rule in force, without its counters."""
    found = []
    for command in ("iptables-save", "ip6tables-save"):
        rules = [line for line in said(command) if not line.startswith("#") and not RESOLVER.search(line)]
        found += [f"{command} " + re.sub(r"\[\d+:\d+\]", "", rule).strip() for rule in rules]
    return found


def databases() -> list[str]:
    psql = ("runuser", "-u", "postgres", "--", "psql", "-XAt")
    return ["database " + line for line in said(*psql, "-l") + said(*psql, "-c", ROLES)]


def files() -> list[str]:
    found = []
    for top in ("/etc", "/srv", "/usr/local", "/var/lib/shipshape"):
        for folder, folders, names in os.walk(top):
            paths = [os.path.join(folder, name) for name in folders + names]
            found += [describe(path) for path in paths if not OF_ITS_OWN.fullmatch(path)]
    return found


def describe(path: str) -> str:
    info = os.lstat(path)
    content = ""
    # Links and notes there name releases.
    if path.startswith(("/srv/", "/var/lib/")):
        pass
    elif stat.S_ISLNK(info.st_mode):
        content = os.readlink(path)
    elif stat.S_ISREG(info.st_mode):
        with open(path, "rb") as stream:
            content = hashlib.sha256(stream.read()).hexdigest()
    return f"{path} {info.st_mode:o} {info.st_uid}:{info.st_gid} {content}"


PARTS = {part.__name__: part for part in (packages, units, firewall, databases, files)}

if __name__ == "__main__":
    print("\n".join(sorted(line for name in sys.argv[1:] or PARTS for line in PARTS[name]())))
