#!/usr/bin/python3
"""Check what is declared for Traefik, and take it live: `shipshape-traefik check|ready|publish|prepare`.

Traefik has no command that tests a configuration, and it acts on each file as soon as it sees it. So Ansible writes to
one directory, and Traefik watches another. `check` lets a second Traefik read what is declared, on a network of its own
where nothing reaches it and it reaches nothing, and asks it what it thinks. `publish` copies what has changed, each
file by one rename. Two things are settled there, because they change while nobody runs Ansible: which colour of an app
is live, and the certificates, which go into the file itself: Traefik watches its files, but not what they point to.

`prepare` is what comes before each start. Where another proxy serves until then, that is while nobody answers: so
`ready` checks, and publishes already where no Traefik runs yet.
"""

import fcntl
import json
import os
import pwd
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from typing import Any, Dict, Iterator, List, Optional, Set

STATIC = "/etc/traefik/traefik.yml"
DECLARED = "/etc/traefik/declared"
DYNAMIC = "/etc/traefik/dynamic"
#: `<app>.green` exists while the green one of its two sets of addresses is live.
COLOURS = "/var/lib/shipshape/live"
LOCK = "/run/shipshape-traefik.lock"
#: The file server's configuration, where there is one.
FILES = "/etc/traefik/files.conf"
#: Where the kernel lists who listens.
TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
#: What Traefik is given beside it, where there is something: the token for a DNS provider's API.
ENVIRONMENT = "/etc/traefik/environment"
PROGRAM = "/usr/local/bin/traefik"
USER = "traefik"
#: Seconds in which the second Traefik must have read the files, and in which the first one must.
PATIENCE = 20.0
TAKEN = 5.0

Texts = Dict[str, str]


class Refused(Exception):
    """What is declared cannot go live."""


def read(path: str) -> str:
    with open(path, encoding="utf-8") as handle:
        return handle.read()


def certificate_texts(rows: List[Dict[str, Any]]) -> Texts:
    """One file for each certificate, holding certificate and key themselves."""
    texts = {}
    for row in rows:
        try:
            pair = {"certFile": read(row["certificate"]), "keyFile": read(row["key"])}
        except OSError as error:
            raise Refused("the certificate of site {} cannot be read: {}".format(row["name"], error)) from error
        tls = {"certificates": [pair]}  # type: Dict[str, Any]
        if row["default"]:
            tls["stores"] = {"default": {"defaultCertificate": pair}}
        texts["tls-{}.yml".format(row["name"])] = json.dumps({"tls": tls}, indent=1) + "\n"
    return texts


def declared_texts(directory: str, colours: str) -> Texts:
    """What shall be in the watched directory, by name: of an app with two colours the live one."""
    texts = {}  # type: Texts
    for name in sorted(os.listdir(directory)):
        if name == "certificates.json":
            texts.update(certificate_texts(json.loads(read(os.path.join(directory, name)))))
            continue
        if not name.endswith(".yml") or name.startswith("."):
            continue
        coloured = re.match(r"live-(.+)\.(blue|green)\.yml$", name)
        if coloured:
            green = os.path.exists(os.path.join(colours, coloured.group(1) + ".green"))
            if coloured.group(2) != ("green" if green else "blue"):
                continue
            texts[f"live-{coloured.group(1)}.yml"] = read(os.path.join(directory, name))
        else:
            texts[name] = read(os.path.join(directory, name))
    return texts


def put(path: str, text: str, group: int) -> None:
    # Traefik reads what ends in .yml, so it never sees half a file.
    handle, temporary = tempfile.mkstemp(prefix=".shipshape-", dir=os.path.dirname(path))
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        os.fchown(handle, 0, group)
        os.fchmod(handle, 0o640)
        stream.write(text)
        stream.flush()
        os.fsync(handle)
    os.replace(temporary, path)


def differences(texts: Texts, directory: str) -> List[str]:
    """The names to write, those first that others refer to."""
    order = {"tls": 0, "live": 1, "users": 1, "base": 2, "site": 3}
    changed = []
    for name, text in texts.items():
        try:
            same = read(os.path.join(directory, name)) == text
        except FileNotFoundError:
            same = False
        if not same:
            changed.append(name)
    return sorted(changed, key=lambda name: (order.get(re.split(r"[-.]", name)[0], 9), name))


def surplus(texts: Texts, directory: str) -> List[str]:
    """The names to remove, sites before what they refer to."""
    names = [name for name in os.listdir(directory) if name not in texts]
    return sorted(names, key=lambda name: (not name.startswith("site-"), name))


# ---- publish


def metrics_address() -> str:
    found = re.search(r"metrics:\n\s+address: (\S+)", read(STATIC))
    return found.group(1).strip("'\"") if found else ""


def reloads(address: str) -> Optional[float]:
    """How often the running Traefik has taken up a configuration; None when it does not run."""
    import urllib.request  # which takes longer than all that a start needs

    try:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=2) as answer:
            found = re.search(r"^traefik_config_reloads_total (\S+)$", answer.read().decode(), re.MULTILINE)
    except OSError:
        return None
    return float(found.group(1)) if found else None


def wait_until_taken(address: str, before: float) -> None:
    """Until it has taken up what was written, and nothing more follows."""
    deadline = time.monotonic() + TAKEN
    last, since = before, time.monotonic()
    while time.monotonic() < deadline:
        now = reloads(address)
        if now is None:
            return
        if now != last:
            last, since = now, time.monotonic()
        if last > before and time.monotonic() - since > 0.3:
            return
        time.sleep(0.02)


def publish() -> None:
    group = pwd.getpwnam(USER).pw_gid
    texts = declared_texts(DECLARED, COLOURS)
    changed, gone = differences(texts, DYNAMIC), surplus(texts, DYNAMIC)
    if not changed and not gone:
        return
    address = metrics_address()
    before = reloads(address)
    for name in changed:
        put(os.path.join(DYNAMIC, name), texts[name], group)
    for name in gone:
        os.unlink(os.path.join(DYNAMIC, name))
    if before is not None:
        wait_until_taken(address, before)


# ---- prepare


def listening() -> Set[int]:
    """The ports of TCP on which somebody listens."""
    found: Set[int] = set()
    for table in TABLES:
        try:
            rows = [line.split() for line in read(table).splitlines()[1:]]
        except FileNotFoundError:
            continue
        found.update(int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == "0A")
    return found


def wait_for_ports() -> None:
    """Until whoever served before has given its ports away. It may still be at its last requests: those are its own."""
    ports = {int(port) for port in re.findall(r"^ +address: \S*?:(\d+)'?$", read(STATIC), re.MULTILINE)}
    deadline = time.monotonic() + PATIENCE
    while ports & listening() and time.monotonic() < deadline:
        time.sleep(0.01)


# ---- check


def complaints(log: str) -> Iterator[str]:
    """What Traefik's log says is wrong. It cannot reach any authority from where it is checked, which is no fault."""
    for line in log.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            # Before it has read how to log.
            if re.search(r"\berror\b", line, re.IGNORECASE):
                yield line.strip()
            continue
        if entry.get("level") not in ("error", "fatal") or "acmeCA" in entry or "ACME CA" in entry:
            continue
        where = [str(entry[key]) for key in ("routerName", "middlewareName", "serviceName") if entry.get(key)]
        yield ": ".join(where + [str(entry.get(key)) for key in ("message", "error") if entry.get(key)])


def has_read(port: int) -> bool:
    """Whether it has taken up the file that is always there."""
    import urllib.request

    url = f"http://127.0.0.1:{port}/api/http/middlewares/shipshape-compress@file"
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except OSError:
        return False


def bring_loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh14x", b"lo", 1)  # IFF_UP
        fcntl.ioctl(any_socket, 0x8914, request)  # SIOCSIFFLAGS


def candidate(directory: str, account: Any) -> str:
    """The declared configuration under a directory of its own; the path of its static file."""
    dynamic = os.path.join(directory, "dynamic")
    os.mkdir(dynamic, 0o750)
    for name, text in declared_texts(DECLARED, COLOURS).items():
        put(os.path.join(dynamic, name), text, account.pw_gid)
    static = read(STATIC).replace(DYNAMIC, dynamic)
    static = static.replace("/var/lib/traefik/", directory + "/").replace("/var/log/traefik/", directory + "/")
    path = os.path.join(directory, "traefik.yml")
    put(path, static + "api:\n  insecure: true\n  dashboard: false\n", account.pw_gid)
    os.chown(dynamic, 0, account.pw_gid)
    os.chown(directory, account.pw_uid, account.pw_gid)
    return path


def environment() -> Texts:
    """As systemd reads it."""
    try:
        lines = read(ENVIRONMENT).splitlines()
    except FileNotFoundError:
        lines = []
    given = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    return {**os.environ, **given}


def check_files() -> None:
    if not os.path.exists(FILES):
        return
    with tempfile.TemporaryDirectory(prefix="shipshape-files-") as directory:
        test = ["nginx", "-t", "-q", "-p", directory + "/", "-c", FILES]
        done = subprocess.run(test, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise Refused("the file server cannot use this configuration:\n" + done.stdout.strip())


def check() -> None:
    """Run inside a network namespace of its own."""
    check_files()
    bring_loopback_up()
    account = pwd.getpwnam(USER)

    def become() -> None:
        os.setgroups([])
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)

    with tempfile.TemporaryDirectory(prefix="shipshape-traefik-") as directory:
        static = candidate(directory, account)
        with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
            # The ports below 1024 are free here for everybody: the namespace's own setting.
            with open("/proc/sys/net/ipv4/ip_unprivileged_port_start", "w", encoding="ascii") as low:
                low.write("0")
            process = subprocess.Popen(
                [PROGRAM, "--configfile=" + static],
                stdout=log,
                stderr=log,
                preexec_fn=become,
                cwd=directory,
                env=environment(),
            )
            try:
                deadline = time.monotonic() + PATIENCE
                found = []  # type: List[str]
                while not found and time.monotonic() < deadline:
                    ended = process.poll() is not None
                    ready = not ended and has_read(8080)
                    if ready:
                        time.sleep(0.2)  # it logs what it cannot use right after it has read it
                    log.seek(0)
                    text = log.read()
                    found = list(complaints(text))
                    if ended and not found:
                        found = [f"it ended with status {process.returncode}: {text.strip()[-500:]}"]
                    if ready:
                        break
                    time.sleep(0.05)
                else:
                    if not found:
                        found = [f"it did not take up its configuration within {PATIENCE:.0f} s"]
            finally:
                process.send_signal(signal.SIGKILL)
                process.wait()
    if found:
        names = "\n".join(dict.fromkeys(line.replace(directory + "/", "") for line in found))
        raise Refused("Traefik cannot use this configuration:\n" + names)


def main(arguments: List[str]) -> int:
    try:
        if arguments in (["check"], ["ready"]):
            inside = ["unshare", "--net", sys.executable, os.path.abspath(__file__), "check-inside"]
            code = subprocess.run(inside, check=False).returncode
            if code == 0 and arguments == ["ready"] and reloads(metrics_address()) is None:
                # Nobody watches yet: what is copied now does not have to be while nobody serves.
                return main(["publish"])
            return code
        elif arguments == ["check-inside"]:
            check()
        elif arguments in (["publish"], ["prepare"]):
            with open(LOCK, "w", encoding="ascii") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                publish()
            if arguments == ["prepare"]:
                wait_for_ports()
        else:
            print(__doc__, file=sys.stderr)
            return 2
    except Refused as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
