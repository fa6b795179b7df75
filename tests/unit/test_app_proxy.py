"""The switch at the proxy: its record, its log, and what counts as faring badly."""

from __future__ import annotations

import http.client
import os
import signal
import stat
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.shipshape.droplet.plugins.module_utils import app_proxy, app_service
from ansible_collections.shipshape.droplet.plugins.module_utils.app_system import AppError

from tests.unit.nginx_lab import Nginx, Upstream, render_all

NGINX_STATUS = app_proxy.Nginx.status
MARK = '"upstream":"shipshape_shop_green"'


def line(status: int, mark: str = MARK, agent: str = "curl") -> str:
    return f'{{"status":{status},{mark},"user_agent":"{agent}"}}'


@pytest.fixture
def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(app_proxy, "LIVE", str(tmp_path / "state" / "live"))
    return tmp_path / "state" / "live"


def test_the_record_is_a_file_that_the_proxys_workers_can_see(live: Path) -> None:
    live.parent.parent.mkdir(exist_ok=True)
    old = os.umask(0o077)
    try:
        assert app_proxy.colour_of("shop") == "blue" and not app_proxy.lead("shop", "blue")
        assert app_proxy.lead("shop", "green") and not app_proxy.lead("shop", "green")
    finally:
        os.umask(old)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (live.parent, live)] == [0o755, 0o755]
    assert app_proxy.colour_of("shop") == "green" and app_proxy.colour_of("shop2") == "blue"
    assert app_proxy.lead("shop", "blue") and os.listdir(live) == []


def test_a_log_is_read_from_now_on_and_over_a_rotation(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    log.write_text("old\n")
    tail = app_proxy.Tail(str(log))
    with log.open("a") as stream:
        stream.write("one\ntw")
    assert tail.lines() == ["one"]
    with log.open("a") as stream:
        stream.write("o\n")
        stream.flush()
        log.rename(tmp_path / "access.log.1")
        stream.write("three\n")
    log.write_text("four\n")
    assert tail.lines() == ["two", "three", "four"]
    with log.open("w") as stream:  # truncated in place
        stream.write("5\n")
    assert tail.lines() == ["5"]


def test_what_is_written_to_the_old_file_after_the_rotation_counts_too(tmp_path: Path) -> None:
    """A proxy goes on with it until it is told, and may end a line there that it has begun."""
    log = tmp_path / "access.log"
    log.write_text("")
    tail = app_proxy.Tail(str(log))
    with log.open("a") as stream:
        stream.write("1\n2")
        stream.flush()
        log.rename(tmp_path / "access.log.1")
        log.write_text("a\n")
        assert tail.lines() == ["1", "a"]
        stream.write("2\n3\n")
        stream.flush()
        log.rename(tmp_path / "access.log.2")
        assert tail.lines() == ["22", "3"]
        log.write_text("b\n")
        assert tail.lines() == ["b"]


def test_a_rotation_during_the_watch_hides_no_error(
    tmp_path: Path, live: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As logrotate does it with a real nginx: another file takes the name, and nginx hears of it a little later."""
    with Upstream(status=500) as bad:
        _flag, site = colours(tmp_path, bad.port, bad.port)
        with Nginx(tmp_path, site).running() as nginx:
            log = tmp_path / "log" / "access.log"
            tail, tally = app_proxy.Tail(str(log)), app_proxy.Tally(('"upstream":"shipshape_shop_blue"',), NGINX_STATUS)

            def ask(times: int) -> None:
                for _ in range(times):
                    nginx.get("shop.test", "/")

            ask(2)
            log.rename(log.with_suffix(".log.1"))
            log.touch()
            for line in tail.lines():
                tally.take(line)
            # To the old file, but for what its buffer holds back.
            ask(3)
            os.kill(int((tmp_path / "nginx.pid").read_text()), signal.SIGUSR1)
            deadline = time.monotonic() + 10
            while not log.stat().st_size:
                assert time.monotonic() < deadline
                ask(1)
                time.sleep(0.3)
            for line in tail.lines():
                tally.take(line)
    assert tally.answers == tally.errors == len(bad.requests) >= 6


@pytest.mark.parametrize(
    ("answers", "errors", "bad"),
    [(3, 1, False), (3, 3, True), (2, 2, False), (1000, 10, False), (1000, 11, True), (0, 0, False)],
)
def test_one_error_of_three_says_little_and_more_than_one_percent_much(answers: int, errors: int, bad: bool) -> None:
    tally = app_proxy.Tally((MARK,), app_proxy.Nginx.status)
    for number in range(answers):
        tally.take(line(502 if number < errors else 200))
    assert bool(tally.judge(1.0, 3)) is bad


def test_answers_of_others_and_our_own_asking_do_not_count() -> None:
    tally = app_proxy.Tally((MARK,), app_proxy.Nginx.status)
    for other in (line(500, '"upstream":"shipshape_shop_blue"'), line(500, agent=app_proxy.SMOKE), "not json"):
        tally.take(other)
    tally.take(line(404))
    assert (tally.answers, tally.errors) == (1, 0)
    assert app_proxy.Nginx().upstreams("shop-api", "blue")[0] == '"upstream":"shipshape_shop_api_blue"'


def fare(
    monkeypatch: pytest.MonkeyPatch, log: Path, answers: list[str], health: list[str], **more: Any
) -> dict[str, str]:
    """Watch an app whose log grows by these lines, and whose health path answers so one time after another."""
    proxy = app_proxy.Nginx()
    proxy.log, proxy.sites = str(log), str(log.parent)
    conf = log.parent / "shop.conf"
    conf.write_text(f"if (-f {app_proxy.LIVE}/shop.green) {{ set $colour green; }}")
    log.touch()
    monkeypatch.setattr(app_proxy, "ask", lambda *_: health.pop(0) if len(health) > 1 else health[0])
    app = {"name": "shop", "to": "green", "back": "blue", "domain": "d", "health": "/h", "watch": 1, **more}

    def begin() -> None:
        proxy.switch("shop", "green")
        with log.open("a") as stream:
            stream.write("".join(f"{answer}\n" for answer in answers))

    failed: dict[str, str] = app_proxy.watch(proxy, [app], 1.0, 3, begin)
    return failed


def test_a_release_that_fares_well_stays(monkeypatch: pytest.MonkeyPatch, live: Path, tmp_path: Path) -> None:
    started = time.monotonic()
    assert fare(monkeypatch, tmp_path / "log", [line(200)] * 200 + [line(500)] * 2, ["one", ""]) == {}
    assert app_proxy.colour_of("shop") == "green" and 1 <= time.monotonic() - started < 4


def test_a_release_that_answers_with_errors_is_led_back_at_once(
    monkeypatch: pytest.MonkeyPatch, live: Path, tmp_path: Path
) -> None:
    started = time.monotonic()
    failed = fare(monkeypatch, tmp_path / "log", [line(200)] * 95 + [line(500)] * 5, [""], watch=60)
    assert failed == {"shop": "watch: 5 of 100 answers were server errors (5.0 %, 1 % allowed)"}
    assert app_proxy.colour_of("shop") == "blue" and time.monotonic() - started < 5


def test_a_release_that_does_not_answer_through_the_proxy_is_led_back(
    monkeypatch: pytest.MonkeyPatch, live: Path, tmp_path: Path
) -> None:
    assert fare(monkeypatch, tmp_path / "log", [], ["HTTP 502"], watch=0) == {
        "shop": "smoke: GET https://d/h through the proxy: HTTP 502"
    }
    assert app_proxy.colour_of("shop") == "blue"
    failed = fare(monkeypatch, tmp_path / "log", [], ["", "refused"], watch=60)
    assert failed["shop"].startswith("watch: GET https://d/h through the proxy: refused")


def test_a_proxy_that_would_not_follow_is_not_led_anywhere(
    monkeypatch: pytest.MonkeyPatch, live: Path, tmp_path: Path
) -> None:
    (tmp_path / "shop.conf").write_text("proxy_pass http://shipshape_shop;")
    monkeypatch.setattr(app_proxy.Nginx, "sites", str(tmp_path))
    app = {"name": "shop", "to": "green", "back": "blue", "domain": "d", "health": "/h", "watch": 1}
    with pytest.raises(AppError, match=r"shop: switch: nginx does not know .* run site.yml --tags nginx first"):
        app_proxy.watch(app_proxy.Nginx(), [app], 1.0, 3, lambda: pytest.fail("it was switched"))
    assert not live.exists()


def test_open_connections_to_a_port_are_counted_and_waited_for(tmp_path: Path) -> None:
    with Upstream() as app:
        assert app_service.connections(app.port) == 0
        connection = http.client.HTTPConnection("127.0.0.1", app.port)
        connection.request("GET", "/")
        connection.getresponse().read()
        assert app_service.connections(app.port) == 1
        assert app_service.drain(app.port, 0.5) == 1
        threading.Timer(0.5, connection.close).start()
        assert app_service.drain(app.port, 10) == 0


def colours(tmp_path: Path, blue: int, green: int) -> tuple[Path, dict[str, Any]]:
    flag = tmp_path / "shop.green"
    proxy = {
        "upstreams": [f"127.0.0.1:{blue}"],
        "green": {"upstreams": [f"127.0.0.1:{green}"], "flag": str(flag)},
        "websockets": ["/ws"],
    }
    return flag, {"nginx_sites": [{"name": "shop", "domains": ["shop.test"], "proxy": proxy}]}


def test_nginx_goes_where_the_record_says_without_a_reload_and_on_the_same_connection(tmp_path: Path) -> None:
    with Upstream({"X-Colour": "blue"}) as blue, Upstream({"X-Colour": "green"}) as green:
        flag, site = colours(tmp_path, blue.port, green.port)
        with Nginx(tmp_path, site).running() as nginx:

            def seen(path: str) -> str | None:
                return nginx.get("shop.test", path, Upgrade="websocket", Connection="Upgrade").header("X-Colour")

            assert [seen("/"), seen("/ws"), seen("/a%2Fb?x=1")] == ["blue"] * 3
            flag.touch()
            assert [seen("/"), seen("/ws"), seen("/a%2Fb?x=1")] == ["green"] * 3
            flag.unlink()
            assert seen("/ws/room") == "blue"
        # Up to now it may have kept the last lines back.
        log = (tmp_path / "log" / "access.log").read_text()
    assert '"upstream":"shipshape_shop_green"' in log and '"upstream":"shipshape_shop_blue"' in log
    # What a client asks for reaches the app as it was written, and where a WebSocket is declared, as one.
    assert green.requests[2][0] == "/a%2Fb?x=1" and green.requests[1][1].get("upgrade") == "websocket"
    assert "upgrade" not in green.requests[0][1]


def test_an_app_at_a_path_switches_by_a_record_of_its_own(
    monkeypatch: pytest.MonkeyPatch, live: Path, tmp_path: Path
) -> None:
    """Two apps with two releases each on one domain, the owner's among them: each answers for its paths alone."""
    monkeypatch.setattr(app_proxy, "LIVE", str(live))
    with Upstream({"X-Colour": "blue"}) as blue, Upstream({"X-Colour": "green"}, status=500) as green:

        def site(name: str, domain: str) -> dict[str, Any]:
            second = {"upstreams": [f"127.0.0.1:{green.port}"], "flag": str(live / f"{name}.green")}
            proxy = {"upstreams": [f"127.0.0.1:{blue.port}"], "green": second}
            return {"name": name, "domains": [domain], "proxy": proxy}

        sites = {"nginx_sites": [site("shop", "d.test"), site("ocr", "d.test/ocr")]}
        with Nginx(tmp_path, sites).running() as nginx:
            log, proxy = app_proxy.Tail(str(tmp_path / "log/access.log")), app_proxy.Nginx()
            monkeypatch.setattr(proxy, "sites", str(tmp_path / "etc/shipshape/sites"))
            assert [proxy.unready(name) for name in ("shop", "ocr", "oc")][:2] == ["", ""]
            assert "run site.yml --tags nginx first" in proxy.unready("oc")

            def seen() -> list[str | None]:
                return [nginx.get("d.test", path).header("X-Colour") for path in ("/", "/ocr/x")]

            assert seen() == ["blue", "blue"]
            app_proxy.lead("ocr", "green")
            assert seen() == ["blue", "green"]
            app_proxy.lead("shop", "green")
            app_proxy.lead("ocr", "blue")
            assert seen() == ["green", "blue"]
        # What one of them answers is counted for none but that one.
        lines = log.lines()
    for name, colour, errors in (("shop", "blue", 0), ("shop", "green", 1), ("ocr", "blue", 0), ("ocr", "green", 1)):
        tally = app_proxy.Tally(proxy.upstreams(name, colour), proxy.status)
        for one in lines:
            tally.take(one)
        assert (tally.answers, tally.errors) == (errors or 2, errors), (name, colour)


def test_a_site_without_a_second_release_is_as_simple_as_before(tmp_path: Path) -> None:
    site = {"name": "api", "domains": ["api.test"], "proxy": {"upstreams": ["127.0.0.1:1"]}}
    files = render_all({"nginx_sites": [site]})
    assert "shipshape_colour" not in files["/etc/nginx/shipshape/sites/api.conf"]
    assert "upstream shipshape_api {" in files["/etc/nginx/shipshape/upstreams/api.conf"]


def test_traefik_follows_the_record_by_what_its_own_program_publishes(
    monkeypatch: pytest.MonkeyPatch, live: Path, tmp_path: Path
) -> None:
    proxy = app_proxy.Traefik()
    proxy.declared, proxy.publish = str(tmp_path / "declared"), ("sh", "-c", f"echo >> {tmp_path}/published")
    assert "run site.yml --tags proxy first" in proxy.unready("shop")
    (tmp_path / "declared").mkdir()
    live.parent.parent.mkdir(exist_ok=True)
    for colour, port in (("blue", 20010), ("green", 20011)):
        service = {"loadBalancer": {"servers": [{"url": f"http://10.0.0.{host}:{port}"} for host in (1, 2)]}}
        text = yaml.safe_dump({"http": {"services": {"shop": service}}})
        (tmp_path / "declared" / f"live-shop.{colour}.yml").write_text(text)
    assert proxy.unready("shop") == ""
    assert proxy.upstreams("shop", "green") == ('"ServiceAddr":"10.0.0.1:20011"', '"ServiceAddr":"10.0.0.2:20011"')
    pages = {"loadBalancer": {"servers": [{"url": "http://127.0.0.1:8081"}], "passHostHeader": False}}
    base = {"http": {"services": {"shipshape-pages": pages}}}
    (tmp_path / "declared" / "base.yml").write_text(yaml.safe_dump(base, sort_keys=False))
    tally = app_proxy.Tally(proxy.upstreams("shop", "green"), proxy.status)
    for status, site, router, address in (
        (502, "shop", "shop:app", "127.0.0.1:8081"),
        (502, "my-shop", "my-shop:app", "127.0.0.1:8081"),
        (503, "shop", "shop:maintenance", "127.0.0.1:8081"),
        (200, "shop", "shop:app-read", "10.0.0.2:20011"),
        (504, "shop", "shop:app-read", "127.0.0.1:8081"),
    ):
        routers = f'"RouterName":"{site}@file -\\u003e {router}@file"'
        tally.take(f'{{"DownstreamStatus":{status},{routers},"ServiceAddr":"{address}"}}')
    # A release that has crashed answers nothing, and yet it fails; of another app, or while closed, it is no failure.
    assert (tally.answers, tally.errors) == (3, 2)
    # At a path, it has another router there, which its site's file names.
    named = {name: {"rule": "x"} for name in ("shop", "shop:app", "shop.0:app", "shop.0:websocket-0")}
    (tmp_path / "declared" / "site-shop.yml").write_text(yaml.safe_dump({"http": {"routers": named}}))
    tally = app_proxy.Tally(proxy.upstreams("shop", "green"), proxy.status)
    for router in ("shop:app", "shop.0:app", "shopx0:app", "shop.0:maintenance"):
        names = f'"RouterName":"{router.partition(":")[0]}@file -\\u003e {router}@file"'
        tally.take(f'{{"DownstreamStatus":502,{names},"ServiceAddr":"127.0.0.1:8081"}}')
    assert (tally.answers, tally.errors) == (2, 2)
    assert proxy.switch("shop", "green") and app_proxy.colour_of("shop") == "green"
    # A run that was cut off between the two has set the record, and nothing more.
    assert not proxy.switch("shop", "green")
    assert (tmp_path / "published").read_text() == "\n\n"
    proxy.publish = ("sh", "-c", "echo the certificate cannot be read; exit 1")
    with pytest.raises(AppError, match=r"shop: switch: .*the certificate cannot be read"):
        proxy.switch("shop", "blue")
