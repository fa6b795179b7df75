"""The proxy's side of a deploy: which release requests go to, and how they fare there.

Whatever the proxy, there is one record of it: the file <app>.green in LIVE, there or not.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import os
import re
import socket
import ssl
import time
from typing import Any, Callable, Iterator, Pattern, Sequence

from ansible_collections.shipshape.droplet.plugins.module_utils.app_system import AppError, run

LIVE = "/var/lib/shipshape/live"
#: So often in a row the health path has to fail for an app to count as lost.
LOST = 3
SMOKE = "shipshape-smoke"


def colour_of(app: str) -> str:
    """The colour that requests go to."""
    return "green" if os.path.exists(os.path.join(LIVE, app + ".green")) else "blue"


def lead(app: str, colour: str) -> bool:
    """Make requests go to that colour; whether they went elsewhere before."""
    if colour_of(app) == colour:
        return False
    # The proxy's workers, which are nobody's friends, must be able to look.
    for folder in (os.path.dirname(LIVE), LIVE):
        if not os.path.isdir(folder):
            os.mkdir(folder, 0o755)
            os.chmod(folder, 0o755)
    flag = os.path.join(LIVE, app + ".green")
    if colour == "green":
        os.close(os.open(flag, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o644))
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(flag)
    folder_handle = os.open(LIVE, os.O_RDONLY)
    try:
        os.fsync(folder_handle)
    finally:
        os.close(folder_handle)
    return True


def _texts(directory: str) -> Iterator[str]:
    """The files of a directory."""
    for name in sorted(os.listdir(directory)) if os.path.isdir(directory) else ():
        with open(os.path.join(directory, name), encoding="utf-8") as stream:
            yield stream.read()


class Nginx:
    """nginx looks for the record at each request, and logs where it passed each one on to."""

    log = "/var/log/nginx/access.log"
    sites = "/etc/nginx/shipshape/sites"
    declared = "/etc/nginx/shipshape/upstreams"
    status = re.compile(r'"status":(\d+)')

    def unready(self, app: str) -> str:
        """Why this proxy would not follow the record: a site of before there were two releases side by side."""
        # An app at a path is in the file of the site that has the domain.
        follows = any(f"(-f {LIVE}/{app}.green)" in text for text in _texts(self.sites))
        return "" if follows else "nginx does not know of two releases of this app; run site.yml --tags nginx first"

    def switch(self, app: str, colour: str) -> bool:
        return lead(app, colour)

    def upstreams(self, app: str, colour: str) -> tuple[str, ...]:
        """How the log names the release that has answered.

        When none has, a page of ours is shown: then the log has its address alone, or its name in the place of that.
        """
        name = "shipshape_{}_{}".format(re.sub(r"[^A-Za-z0-9]", "_", app), colour)
        try:
            with open(os.path.join(self.declared, app + ".conf"), encoding="utf-8") as stream:
                block = re.search(rf"^upstream {name} {{(.*?)^}}", stream.read(), re.MULTILINE | re.DOTALL)
        except OSError:
            block = None
        addresses = re.findall(r"^\s*server (\S+);", block.group(1), re.MULTILINE) if block else []
        silent = [f'"upstream":"","upstream_address":"{one}{end}' for one in (*addresses, name) for end in ('"', ", ")]
        return (f'"upstream":"{name}"', *silent)


class Traefik:
    """Traefik takes up each file that appears; the program that puts it there looks for the record."""

    log = "/var/log/traefik/access.log"
    declared = "/etc/traefik/declared"
    publish = ("shipshape-traefik", "publish")
    status = re.compile(r'"DownstreamStatus":(\d+)')

    def _declared(self, app: str, colour: str) -> str:
        with open(os.path.join(self.declared, f"live-{app}.{colour}.yml"), encoding="utf-8") as stream:
            return stream.read()

    def unready(self, app: str) -> str:
        try:
            self._declared(app, "green")
        except OSError:
            return "Traefik does not know of two releases of this app; run site.yml --tags proxy first"
        return ""

    def switch(self, app: str, colour: str) -> bool:
        changed = lead(app, colour)
        # Also when the record was right: a run that was cut off may have come no further.
        code, said = run(None, self.publish)
        if code != 0:
            raise AppError(app, "switch", f"`{' '.join(self.publish)}` failed: {said}")
        return changed

    def upstreams(self, app: str, colour: str) -> tuple[str, ...]:
        """The log has the address that has answered, which no two releases share.

        When none has, a page of ours is shown, and the log has the address of that: then it counts whose it would have
        been, and that is the release that the proxy leads to.
        """
        addresses = re.findall(r"url: http://(\S+)", self._declared(app, colour))
        marks = [f'"ServiceAddr":"{address}"' for address in addresses]
        try:
            with open(os.path.join(self.declared, "base.yml"), encoding="utf-8") as stream:
                pages = re.search(r"shipshape-pages:\s+loadBalancer:\s+servers:\s+- url: http://(\S+)", stream.read())
        except OSError:
            pages = None
        if pages:
            marks += [f'\\u003e {router}@file","ServiceAddr":"{pages.group(1)}"' for router in self._routers(app)]
        return tuple(marks)

    def _routers(self, app: str) -> list[str]:
        """Those that lead to the app, with and without a body: for its domains, and for each path at which it is."""
        try:
            with open(os.path.join(self.declared, f"site-{app}.yml"), encoding="utf-8") as stream:
                found = re.findall(rf"^ +({re.escape(app)}(?:\.\d+)?:app(?:-read)?):", stream.read(), re.MULTILINE)
        except OSError:
            found = []
        return found or [f"{app}:app", f"{app}:app-read"]


PROXIES: dict[str, Callable[[], Any]] = {"nginx": Nginx, "traefik": Traefik}


class Tail:
    """What is added to a log from now on, also over a rotation.

    A proxy writes to the old file until it is told of the new one, and its workers until each has heard of it: whoever
    left the old one at once would miss that. So every file that has had the log's name is read until the end.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        #: Each with the beginning of a line whose end is not there yet; the newest last.
        self.files: list[list[Any]] = []
        self._look()
        for stream, _rest in self.files:
            stream.seek(0, os.SEEK_END)

    def _look(self) -> None:
        """Take in the file that has the name now, unless it is one of ours."""
        known = [os.fstat(stream.fileno()) for stream, _rest in self.files]
        try:
            found = os.stat(self.path)
            if not any((found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino) for ours in known):
                self.files.append([self._open(), b""])
        except OSError:
            return  # it is just being moved, or there is none yet

    def _open(self) -> Any:
        return open(self.path, "rb")

    def lines(self) -> list[str]:
        self._look()
        found: list[bytes] = []
        for file in self.files:
            stream, rest = file
            if os.fstat(stream.fileno()).st_size < stream.tell():
                # Emptied in its place.
                stream.seek(0)
                rest = b""
            *whole, file[1] = (rest + stream.read()).split(b"\n")
            found += whole
        return [line.decode("utf-8", "replace") for line in found]


class Tally:
    """The answers of one release."""

    def __init__(self, marks: Sequence[str], status: Pattern[str]) -> None:
        self.marks, self.status, self.answers, self.errors = marks, status, 0, 0

    def take(self, line: str) -> None:
        ours = any(mark in line for mark in self.marks) and SMOKE not in line
        status = self.status.search(line) if ours else None
        if status:
            self.answers += 1
            self.errors += status.group(1) >= "500"

    def judge(self, percent: float, least: int) -> str:
        """Nothing while it is well. One error among three requests says little; many do."""
        share = 100.0 * self.errors / self.answers if self.answers else 0.0
        if self.errors < least or share <= percent:
            return ""
        return f"{self.errors} of {self.answers} answers were server errors ({share:.1f} %, {percent:g} % allowed)"


def ask(domain: str, path: str, patience: float = 5.0) -> str:
    """Nothing when the app answers through the proxy of this host, otherwise what came instead."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    bare = domain.strip("[]")
    try:
        ipaddress.ip_address(bare)
        name = None
    except ValueError:
        name = domain
    try:
        with socket.create_connection(("127.0.0.1", 443), timeout=patience) as plain:
            with context.wrap_socket(plain, server_hostname=name) as stream:
                host = f"[{bare}]" if ":" in bare else bare
                head = f"GET {path or '/'} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {SMOKE}\r\nConnection: close\r\n\r\n"
                stream.sendall(head.encode())
                answer = http.client.HTTPResponse(stream)
                answer.begin()
                said = " ".join(answer.read(300).decode("utf-8", "replace").split())
    except (OSError, http.client.HTTPException) as error:
        return " ".join(str(error).split()) or type(error).__name__
    # A limit, a login or a redirect is the site's own affair; an app without a health path may know no `/`.
    bad = answer.status >= 500 or (answer.status == 404 and bool(path))
    return f"HTTP {answer.status} {said}" if bad else ""


def watch(
    proxy: Any, apps: list[dict[str, Any]], percent: float, least: int, begin: Callable[[], None]
) -> dict[str, str]:
    """Begin, and look how each app fares for its time. Returns those that fared badly, with what was seen.

    An app that fares badly is led back at once.
    """
    for app in apps:
        unready = proxy.unready(app["name"])
        if unready:
            raise AppError(app["name"], "switch", unready)
    log = Tail(proxy.log)
    begin()
    started = time.monotonic()
    failed: dict[str, str] = {}
    tallies = {app["name"]: Tally(proxy.upstreams(app["name"], app["to"]), proxy.status) for app in apps}
    silent = {app["name"]: 0 for app in apps}
    asked = 0.0

    def give_up(app: dict[str, Any], step: str, why: str) -> None:
        failed[app["name"]] = f"{step}: {why}"
        if app["back"]:
            proxy.switch(app["name"], app["back"])

    while True:
        elapsed = time.monotonic() - started
        left = [app for app in apps if app["name"] not in failed and (elapsed <= app["watch"] or not asked)]
        if not left:
            return failed
        for line in log.lines():
            for tally in tallies.values():
                tally.take(line)
        due = not asked or time.monotonic() - asked >= 1
        for app in left:
            problem = tallies[app["name"]].judge(percent, least)
            if problem:
                give_up(app, "watch", problem)
            elif due:
                silent[app["name"]], lost = _health(app, silent[app["name"]], first=not asked)
                if lost:
                    give_up(app, "watch" if asked else "smoke", lost)
        if due:
            asked = time.monotonic()
        if any(elapsed < app["watch"] for app in left):
            time.sleep(0.2)


def _health(app: dict[str, Any], before: int, first: bool) -> tuple[int, str]:
    """How often in a row the app has not answered, and, when that is too often, what came instead."""
    problem = ask(app["domain"], app["health"])
    tries = 1
    while first and problem and tries < LOST:
        time.sleep(0.5)
        problem, tries = ask(app["domain"], app["health"]), tries + 1
    count = before + tries if problem else 0
    url = f"https://{app['domain']}{app['health'] or '/'}"
    return count, (f"GET {url} through the proxy: {problem}" if count >= LOST else "")
