"""An app as a systemd service: its state, its log, whether it is healthy."""

from __future__ import annotations

import http.client
import re
import time
from typing import Sequence

from ansible_collections.shipshape.droplet.plugins.module_utils.app_system import last_lines, run

PROPERTIES = (
    "ActiveState",
    "SubState",
    "UnitFileState",
    "NeedDaemonReload",
    "LoadState",
    "MainPID",
    "NRestarts",
    "Result",
)
#: What roles/app/templates/app.service.j2 says of the service, so that a migration can no more and no less.
SANDBOX = (
    "UMask=0027",
    "StateDirectoryMode=0750",
    "PrivateTmp=yes",
    "ProtectSystem=strict",
    "ProtectHome=yes",
    "InaccessiblePaths=-/etc/shipshape",
    "NoNewPrivileges=yes",
    "CapabilityBoundingSet=",
    "AmbientCapabilities=",
    "PrivateDevices=yes",
    "ProtectClock=yes",
    "ProtectControlGroups=yes",
    "ProtectHostname=yes",
    "ProtectKernelLogs=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
    "ProtectProc=invisible",
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "RemoveIPC=yes",
    "LockPersonality=yes",
    "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service",
    "SystemCallFilter=~@privileged @resources",
    "SystemCallErrorNumber=EPERM",
)
#: A process that ended so often after a start will not get better by waiting.
HOPELESS = 3
#: Where the kernel lists the connections of this host.
TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
#: Without a health path, a service that stays up so long is taken for a good one.
SETTLED = 3.0


def show(units: Sequence[str]) -> dict[str, dict[str, str]]:
    """The state of several units in one question. A unit systemd does not know has LoadState not-found."""
    if not units:
        return {}
    code, output = run(
        None, ["systemctl", "show", "--no-pager", "--property=Id", "--property=" + ",".join(PROPERTIES), *units]
    )
    if code != 0:
        return {}
    states: dict[str, dict[str, str]] = {}
    for block in output.split("\n\n"):
        fields = dict(line.partition("=")[::2] for line in block.splitlines() if "=" in line)
        if fields.get("Id"):
            states[fields["Id"]] = fields
    return states


def is_up(state: dict[str, str] | None) -> bool:
    return bool(state) and state.get("ActiveState") == "active" and state.get("SubState") == "running"  # type: ignore[union-attr]


def systemctl(*arguments: str, timeout: int = 180) -> tuple[int, str]:
    result: tuple[int, str] = run(None, ["systemctl", "--no-ask-password", *arguments], timeout=timeout)
    return result


def journal(unit: str, since: float, health: str = "", count: int = 20) -> str:
    """The last lines a unit has logged since then, but for those about our own asking for its health."""
    command = ["journalctl", "--no-pager", "--quiet", "--output=cat", "--unit", unit, "--lines", "1000"]
    _code, output = run(None, [*command, "--since", f"@{int(since)}"])
    return without_asking(output, health, count)


def without_asking(log: str, health: str, count: int = 20) -> str:
    lines = [line for line in log.splitlines() if not health or f"GET {health} " not in line]
    return str(last_lines("\n".join(lines), count))


def one_line(text: str) -> str:
    return " ".join(text.split())


def probe(address: str, port: int, path: str, patience: float = 5.0, status: int = 200, body: str = "") -> str:
    """What a GET answers: nothing when it has that status and that text is found in it, otherwise what came instead."""
    connection = http.client.HTTPConnection(address, port, timeout=patience)
    try:
        connection.request("GET", path, headers={"User-Agent": "shipshape-health", "Connection": "close"})
        answer = connection.getresponse()
        said = answer.read(65536).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        return one_line(str(error)) or type(error).__name__
    finally:
        connection.close()
    shown = one_line(said[:300])
    if answer.status != status:
        return f"HTTP {answer.status} {shown}"
    return "" if re.search(body, said) else f"HTTP {answer.status}, but nothing that matches {body!r} in: {shown}"


def connections(port: int, tables: Sequence[str] = TABLES) -> int:
    """How many connections to a port of this host are open."""
    found = 0
    for table in tables:
        try:
            with open(table, encoding="ascii") as stream:
                rows = [line.split() for line in stream.readlines()[1:]]
        except OSError:
            continue
        found += sum(1 for row in rows if row[3] == "01" and int(row[1].rpartition(":")[2], 16) == port)
    return found


def drain(port: int, limit: float, tables: Sequence[str] = TABLES) -> int:
    """Wait until nobody is connected any more; returns how many are when the time is over."""
    deadline = time.monotonic() + limit
    quiet = 0
    while True:
        left = connections(port, tables)
        # Twice: a proxy may just have decided to connect.
        quiet = quiet + 1 if left == 0 else 0
        if quiet >= 2 or time.monotonic() > deadline:
            return left
        time.sleep(0.3)


class Gate:
    """Waits until a service that was just started is healthy, or until it is plain that it will not be."""

    def __init__(
        self, unit: str, address: str, port: int, path: str, patience: int, status: int = 200, body: str = ""
    ) -> None:
        self.unit, self.address, self.port, self.path, self.patience = unit, address, port, path, patience
        self.status, self.body = status, body

    @property
    def url(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"http://{host}:{self.port}{self.path}"

    def start(self) -> str:
        """Start the service anew and wait. Nothing when it is healthy, otherwise why not."""
        return self.launch() or self.wait()

    def launch(self) -> str:
        """Start the service anew. Nothing when systemd has, otherwise why not."""
        for command in (("daemon-reload",), ("enable", "--quiet", self.unit), ("reset-failed", self.unit)):
            code, output = systemctl(*command)
            if code != 0 and command[0] != "reset-failed":  # which knows only units that are loaded
                return "systemctl {} failed: {}".format(" ".join(command), output)
        code, output = systemctl("restart", self.unit)
        return f"it does not start: {output}" if code != 0 else ""

    def wait(self) -> str:
        """Wait until it is healthy. Nothing when it is, otherwise why not."""
        began = time.monotonic()
        problem = "no answer yet"
        steady_since: float | None = None
        main = ""
        while True:
            state = show([self.unit]).get(self.unit, {})
            if is_up(state) and state["MainPID"] == main:
                steady_since = steady_since or time.monotonic()
            else:
                steady_since, main = None, state.get("MainPID", "") if is_up(state) else ""
            if int(state.get("NRestarts") or 0) >= HOPELESS or state.get("ActiveState") == "failed":
                return "it ended again and again"
            if self.path:
                # Asked between two looks at the process: an answer counts when it was this service that could give it.
                problem = probe(self.address, self.port, self.path, status=self.status, body=self.body)
                again = show([self.unit]).get(self.unit, {})
                if not problem and is_up(again) and again["MainPID"] == state.get("MainPID"):
                    return ""
                problem = problem or "another process than the app's answers there"
            elif steady_since and time.monotonic() - steady_since >= SETTLED:
                return ""
            if time.monotonic() - began > self.patience:
                asked = f"GET {self.url}: {problem}" if self.path else "it did not stay up"
                return f"it is not healthy after {self.patience} seconds ({asked})"
            time.sleep(0.25 if time.monotonic() - began < 5 else 1)


def settled(units: Sequence[str], patience: float) -> tuple[str, str]:
    """Wait until all of these services, just started, have stayed up. (The unit that has not, what it does instead)."""
    began = time.monotonic()
    since: dict[str, tuple[str, float]] = {}
    while True:
        states = show(units)
        for unit in units:
            state = states.get(unit, {})
            if int(state.get("NRestarts") or 0) >= HOPELESS or state.get("ActiveState") == "failed":
                return unit, "it ended again and again"
            main = state.get("MainPID", "") if is_up(state) else ""
            if not main or since.get(unit, ("", 0.0))[0] != main:
                since[unit] = (main, time.monotonic())
        restless = [unit for unit, (main, at) in since.items() if not main or time.monotonic() - at < SETTLED]
        if not restless:
            return "", ""
        if time.monotonic() - began > patience:
            return restless[0], f"it did not stay up within {int(patience)} seconds"
        time.sleep(0.25)


def run_once(
    unit: str, properties: Sequence[str], command: Sequence[str], patience: int, lock: int | None = None
) -> tuple[int, str]:
    """Run a command to its end, fenced in as a service is, as a unit with these properties beside."""
    full = ["systemd-run", "--quiet", "--collect", "--wait", "--pipe", "--unit=" + unit]
    full += ["--property=" + value for value in (*properties, *SANDBOX, f"RuntimeMaxSec={patience}")]
    wait_for_end(unit, patience)
    code, output = run(None, [*full, "--", *command], timeout=patience + 30, lock=lock)
    if code != 0 and not output:
        output = f"exit {code}"
    return code, output


def wait_for_end(unit: str, patience: int) -> None:
    """An interrupted run leaves its process to systemd, which brings it to its end: two at once would be worse."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        state = show([unit]).get(unit, {})
        if state.get("ActiveState") not in ("active", "activating", "deactivating"):
            return
        time.sleep(0.5)
