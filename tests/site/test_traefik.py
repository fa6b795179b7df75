"""A live droplet goes from nginx to Traefik and back by one word of its inventory."""

from __future__ import annotations

import base64
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from plugins.plugin_utils.names import app_port, second_port
from tests.lab import http3, settings
from tests.lab import mirror as lab_mirror
from tests.site import malar_market, system
from tests.site.system import PROJECT, System

DOMAIN = "either.test"
DOMAINS = malar_market.domains(DOMAIN)
API = f"https://api.{DOMAIN}"
WEB = f"https://{DOMAIN}"
HOSTS = {"malar1": "10.77.0.48"}
#: Seconds for which a connection to the release before may go on.
DRAIN = 8
#: Headers that both proxies send. Those of an application are replaced by Traefik, and go before ours in nginx.
ALIKE = (
    "strict-transport-security", "x-content-type-options", "x-frame-options", "referrer-policy", "permissions-policy",
    "content-type", "cache-control",
)  # fmt: skip


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with lab_mirror.traefik(tmp_path_factory.mktemp("mirror"), HOSTS["malar1"]) as address:
        yield address


@pytest.fixture(scope="module")
def malar(tmp_path_factory: pytest.TempPathFactory, mirror: str) -> Iterator[System]:
    system.start("traefik", HOSTS, DOMAINS)
    folder = tmp_path_factory.mktemp("traefik")
    inventory = malar_market.at(DOMAIN, folder)
    main = inventory / "group_vars/all/main.yml"
    text = main.read_text(encoding="utf-8")
    domains = f"domains: [{DOMAINS[0]}]\n"
    assert text.count(domains) == 1
    # A path of the other app's domain comes first, so that a deploy asks there whether the app is well.
    at_path = f"domains: [{DOMAINS[1]}/backend, {DOMAINS[0]}]\n    strip: true\n"
    main.write_text(text.replace(domains, at_path), encoding="utf-8")
    extra = {"traefik_mirror": mirror, "app_watch_seconds": 2, "app_drain_seconds": DRAIN}
    one = System(inventory, HOSTS, folder, system.bucket("shipshape-traefik"), DOMAINS, extra)
    run = one.play("site.yml")
    assert run.code == 0, run.tail
    yield one
    system.stop("traefik", HOSTS)


def serial(malar: System) -> str:
    """Of the certificate that is served, verified by the authority's root alone."""
    program = (PROJECT / "molecule/certbot/served.py", malar.hosts["malar1"], settings.CA_CERTIFICATE, DOMAINS[0])
    words = [sys.executable, *map(str, program)]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def what_a_visitor_sees(malar: System) -> list[object]:
    pages = [f"{API}/health", f"{WEB}/", f"{WEB}/orders/1", f"{WEB}/sw.js", f"{WEB}/.env", f"{WEB}/missing.js"]
    pages += [f"{WEB}/backend/health", f"{WEB}/backend/api/v1/farmers", f"{WEB}/health"]
    seen: list[object] = [serial(malar)]
    for page in pages:
        answer = malar.fetch(page)
        headers = {name: answer.headers.get(name, "").lower() for name in ALIKE} if answer.status == 200 else {}
        seen.append((page, answer.status, headers))
    for page in (f"http://{DOMAINS[0]}/x?y", f"https://{DOMAINS[2]}/x?y"):
        answer = malar.fetch(page)
        seen.append((page, answer.status, answer.headers["location"]))
    return seen


class Visitor:
    """Asks all the time, and remembers for how long nobody answered."""

    def __init__(self, malar: System) -> None:
        self.malar, self.gap, self.stop = malar, 0.0, threading.Event()
        self.answered, self.lost = 0, 0
        self.thread = threading.Thread(target=self.ask)

    def ask(self) -> None:
        last = time.monotonic()
        while not self.stop.wait(0.05):
            try:
                well = self.malar.fetch(f"{API}/health").status == 200
            except AssertionError:
                well = False
            self.answered += well
            self.lost += not well
            if well:
                self.gap = max(self.gap, time.monotonic() - last)
                last = time.monotonic()

    def __enter__(self) -> Visitor:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()


class Listener:
    """A WebSocket to the app, by way of the path that it has on the other app's domain."""

    def __init__(self, malar: System) -> None:
        context = ssl.create_default_context(cafile=str(settings.CA_CERTIFICATE))
        plain = socket.create_connection((malar.hosts["malar1"], 443), 10)
        self.connection = context.wrap_socket(plain, server_hostname=DOMAINS[1])
        self.stream = self.connection.makefile("rb")
        key = base64.b64encode(os.urandom(16)).decode()
        self.connection.sendall(
            f"GET /backend/ws HTTP/1.1\r\nHost: {DOMAINS[1]}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        assert b" 101 " in self.stream.readline()
        while self.stream.readline().strip():
            pass
        assert b'"rates"' in self.frame()

    def say(self, kind: int, data: bytes) -> None:
        mask = b"\x01\x02\x03\x04"
        masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(data))
        self.connection.sendall(bytes([0x80 | kind, 0x80 | len(data)]) + mask + masked)

    def frame(self) -> bytes:
        """What it is told next; nothing when the connection is closed. A ping wants to be answered."""
        while len(head := self.stream.read(2)) == 2:
            data = self.stream.read(head[1])
            if head[0] == 0x81:
                return data
            if head[0] != 0x89:
                break
            self.say(0xA, data)
        return b""

    def lives(self) -> bool:
        """Whether what it says is answered."""
        try:
            self.say(0x1, b"still here")
            return b"still here" in self.frame()
        except OSError:
            return False


@pytest.mark.parametrize(("proxy", "other"), [("traefik", "nginx"), ("nginx", "traefik")])
def test_one_word_changes_the_proxy_and_nothing_that_a_visitor_sees(malar: System, proxy: str, other: str) -> None:
    before = what_a_visitor_sees(malar)
    malar.extra["proxy"] = proxy
    with Visitor(malar) as visitor:
        run = malar.play("site.yml", "--diff")
    assert run.code == 0, run.tail
    assert what_a_visitor_sees(malar) == before
    assert malar.fetch(f"{WEB}/backend/health").status == 200
    print(f"nobody answered for {visitor.gap:.1f} s at most")
    # Some 2 s on two processors with a load of 20; before, the new proxy was started twice, after the old one's end.
    assert visitor.gap < 6
    assert malar.ssh(f"systemctl is-active {proxy}; systemctl is-active {other} || true").split() == [
        "active",
        "inactive",
    ]
    assert malar.ssh("systemctl list-units --failed --plain --no-legend") == ""
    again = malar.play("site.yml")
    assert (again.code, again.count("changed")) == (0, 0), again.tail
    verified = malar.play("playbooks/verify.yml")
    assert verified.code == 0, verified.tail
    jails = malar.ssh("fail2ban-client status")
    assert f"{proxy}-probes" in jails and f"{other}-probes" not in jails


FLAG = "test -e /var/lib/shipshape/live/malar-api.green && echo green || echo blue"


def followed(malar: System, proxy: str) -> bool:
    """Whether the proxy leads to the green release: it takes a moment to follow the flag."""
    port = second_port(app_port("malar-api"))
    return f'"{proxy}"' in malar.ssh(f"ss -Htnp state established '( dport = :{port} )'")


@pytest.mark.parametrize("proxy", ["nginx", "traefik"])
def test_an_open_websocket_outlives_the_switch_until_the_drain_limit(malar: System, proxy: str) -> None:
    """A new one gets the new release meanwhile; and no request is lost, nor on the way back."""
    if malar.extra.get("proxy", "nginx") != proxy:
        malar.extra["proxy"] = proxy
        # Not site.yml, which would deploy anew what the way back has left.
        assert malar.play("playbooks/proxy.yml").code == 0
    assert malar.ssh(FLAG) == "blue"
    malar.extra["vault_malar_sentry_dsn"] = f"https://before-{proxy}@sentry.test/1"
    old = Listener(malar)
    runs: list[system.Run] = []
    deploy = threading.Thread(
        target=lambda: runs.append(malar.play("playbooks/deploy.yml", "-e", "app=malar-api")), daemon=True
    )
    with Visitor(malar) as visitor:
        deploy.start()
        while not followed(malar, proxy):
            assert deploy.is_alive(), runs[0].tail
            assert old.lives()
        switched, new, lasted = time.monotonic(), Listener(malar), 0.0
        while old.lives():
            lasted = time.monotonic() - switched
            assert new.lives()
            time.sleep(0.2)
        deploy.join()
        assert runs[0].code == 0, runs[0].tail
        # The first is cut off with its release; the second has been the new one's from the start.
        assert DRAIN - 1 < lasted < DRAIN + 30 and new.lives()
        new.connection.close()
        back = malar.play("playbooks/rollback.yml", "-e", "app=malar-api")
        assert back.code == 0, back.tail
    assert malar.ssh(FLAG) == "blue"
    assert visitor.answered > 50 and visitor.lost == 0, visitor.gap


def test_the_chosen_proxy_is_there_after_a_restart(malar: System) -> None:
    malar.extra["proxy"] = "traefik"
    run = malar.play("playbooks/proxy.yml")
    assert run.code == 0, run.tail
    subprocess.run([sys.executable, "-m", "tests.lab", "reboot", "shipshape-traefik-malar1"], cwd=PROJECT, check=True)
    deadline = time.monotonic() + 60
    while malar.fetch(f"{API}/health").status == 502:  # the application starts, too
        assert time.monotonic() < deadline
        time.sleep(1)
    assert malar.fetch(f"{API}/health").status == 200
    assert malar.ssh("systemctl list-units --failed --plain --no-legend") == ""


def test_the_log_of_traefik_leads_to_bans_as_that_of_nginx_does(malar: System) -> None:
    run = malar.play("playbooks/hardening.yml")
    assert run.code == 0, run.tail
    for hole in ("/.env", "/.git/config"):
        malar.ssh(f"curl -sk --interface lo -o /dev/null --resolve {DOMAINS[1]}:443:127.0.0.1 {WEB}{hole} || true")
    # Its own address is never banned, but it is counted as found.
    malar.ssh("for _ in $(seq 50); do grep -q /.git/config /var/log/traefik-refused.log && break; sleep 0.2; done")
    found = malar.ssh(
        "fail2ban-regex --print-all-matched /var/log/traefik-refused.log shipshape-traefik-probes | tail -n 40"
    )
    assert "/.git/config" in found and "127.0.0.1" in found, found


def test_http3_is_answered_and_let_in_where_it_is_wanted_alone(malar: System) -> None:
    def run(tags: str, wanted: bool) -> int:
        """The status of a page that is asked for by HTTP/3 afterwards; 0 when nobody answers."""
        malar.extra["http3"] = wanted
        done = malar.play("site.yml", "--tags", tags)
        assert done.code == 0, done.tail
        return http3.status(HOSTS["malar1"], DOMAINS[1], str(settings.CA_CERTIFICATE))

    malar.extra["proxy"] = "traefik"  # nginx speaks it from 1.25 on
    listens = "ss --no-header --listening --udp --numeric 'sport = :443'"
    assert run("proxy", True) == 0 and "443" in malar.ssh(listens)
    assert run("hardening", True) == 200
    assert "h3=" in malar.fetch(f"{WEB}/").headers["alt-svc"]
    assert run("hardening,proxy", False) == 0 and malar.ssh(listens) == ""
    assert "443/udp" not in malar.ssh("ufw status")
