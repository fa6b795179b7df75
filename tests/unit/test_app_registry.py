"""Asking a registry which image a tag stands for: names, logins, and messages that say what to do."""

from __future__ import annotations

import base64
import email.message
import http.server
import io
import json
import ssl
import threading
import urllib.error
import urllib.request
import urllib.response
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.shipshape.droplet.plugins.module_utils import app_registry
from ansible_collections.shipshape.droplet.plugins.module_utils.app_registry import Login, resolve
from ansible_collections.shipshape.droplet.plugins.module_utils.app_system import AppError

DIGEST = "sha256:" + "0123456789abcdef" * 4
FETCHER = Login("fetcher", "p@ss:word")


@pytest.mark.parametrize(
    ("name", "host", "path"),
    [
        ("nginx", "docker.io", "library/nginx"),
        ("team/ocr", "docker.io", "team/ocr"),
        ("registry.example.com/ocr", "registry.example.com", "ocr"),
        ("registry.example.com:5000/team/ocr", "registry.example.com:5000", "team/ocr"),
        ("localhost/ocr", "localhost", "ocr"),
        ("registry:5000/a/b_c/d-e.f", "registry:5000", "a/b_c/d-e.f"),
    ],
)
def test_a_name_means_what_it_means_to_docker(name: str, host: str, path: str) -> None:
    image = app_registry.image_of(name)
    assert (image.host, image.path) == (host, path)


@pytest.mark.parametrize("name", ["", "OCR", "registry.example.com/", "a//b", "a b", "-x", "x;y", "$(id)", "a/../b"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError):
        app_registry.image_of(name)


@pytest.mark.parametrize(
    ("reference", "name", "version"),
    [
        ("ocr", "ocr", ""),
        ("ocr:1.4", "ocr", "1.4"),
        ("r.test:5000/ocr", "r.test:5000/ocr", ""),
        ("r.test:5000/ocr:1.4", "r.test:5000/ocr", "1.4"),
        (f"r.test/ocr@{DIGEST}", "r.test/ocr", DIGEST),
        (f"r.test:5000/ocr:1.4@{DIGEST}", "r.test:5000/ocr", f"1.4@{DIGEST}"),
    ],
)
def test_a_reference_is_split_into_name_and_version(reference: str, name: str, version: str) -> None:
    assert app_registry.split(reference) == (name, version)


@pytest.mark.parametrize("version", [DIGEST, "1.4@" + DIGEST])
def test_a_digest_needs_no_registry(version: str) -> None:
    assert resolve("ocr", "registry.invalid/ocr", version, Login()) == DIGEST


def test_the_login_is_given_to_the_registry_of_the_image_alone() -> None:
    text = app_registry.docker_config(app_registry.image_of("r.test:5000/ocr"), FETCHER)
    assert json.loads(text) == {"auths": {"r.test:5000": {"auth": base64.b64encode(b"fetcher:p@ss:word").decode()}}}
    text = app_registry.docker_config(app_registry.image_of("nginx"), FETCHER)
    assert list(json.loads(text)["auths"]) == ["https://index.docker.io/v1/"]
    assert json.loads(app_registry.docker_config(app_registry.image_of("nginx"), Login())) == {"auths": {}}


class Server(http.server.BaseHTTPRequestHandler):
    """A registry on loopback; `way` says how it wants its logins."""

    way, seen, broken = "open", [], 0  # type: ignore[var-annotated]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        kind = type(self)
        login = self.headers.get("Authorization", "")
        kind.seen.append((self.command, self.path, login))
        base = f"http://{self.headers['Host']}"
        if kind.broken:
            kind.broken -= 1
            return self.say(503)
        if self.path.startswith("/token"):
            good = kind.way == "anonymous" or login == f"Basic {FETCHER.basic}"
            return self.say(200, {"token": "t0ken"}) if good else self.say(401)
        wanted = {"basic": f"Basic {FETCHER.basic}", "token": "Bearer t0ken", "anonymous": "Bearer t0ken"}.get(kind.way)
        if wanted and login != wanted:
            challenge = f'Bearer realm="{base}/token",service="registry",scope="x"'
            return self.say(401, header=("WWW-Authenticate", 'Basic realm="x"' if kind.way == "basic" else challenge))
        if kind.way == "elsewhere":
            return self.say(401, header=("WWW-Authenticate", 'Bearer realm="http://thief.test/token"'))
        if self.path == "/v2/ocr/manifests/1.4":
            return self.say(200, header=("Docker-Content-Digest", DIGEST))
        if self.path == "/v2/ocr/tags/list":
            return self.say(200, {"tags": ["1.3", "1.4"]})
        return self.say(404)

    def say(self, status: int, content: Any = None, header: tuple[str, str] | None = None) -> None:
        body = json.dumps(content).encode() if content is not None and self.command == "GET" else b""
        self.send_response(status)
        if header:
            self.send_header(*header)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Any]:
    handler = type("Fresh", (Server,), {"seen": []})
    found = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=found.serve_forever, daemon=True).start()
    handler.name = f"127.0.0.1:{found.server_port}/ocr"  # type: ignore[attr-defined]
    yield handler
    found.shutdown()
    found.server_close()


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_registry.time, "sleep", lambda _seconds: None)


@pytest.mark.parametrize(("way", "login"), [("open", Login()), ("open", FETCHER), ("anonymous", Login())])
def test_an_open_registry_says_the_digest_of_a_tag(server: Any, way: str, login: Login) -> None:
    server.way = way
    assert resolve("ocr", server.name, "1.4", login) == DIGEST


@pytest.mark.parametrize("way", ["basic", "token"])
def test_a_login_is_given_in_the_way_the_registry_asks_for(server: Any, way: str) -> None:
    server.way = way
    assert resolve("ocr", server.name, "1.4", FETCHER) == DIGEST
    # Nothing is fetched, and the password goes nowhere before it is asked for.
    assert server.seen[0] == ("HEAD", "/v2/ocr/manifests/1.4", "")
    assert all(path.startswith(("/v2/ocr/manifests/", "/token")) for _method, path, _login in server.seen)


@pytest.mark.parametrize("way", ["basic", "token"])
def test_a_private_image_without_login_says_where_the_login_belongs(server: Any, way: str) -> None:
    server.way = way
    with pytest.raises(AppError, match=r"^ocr: image: .* wants a login for .*/ocr:1\.4.*`registry: {username: …"):
        resolve("ocr", server.name, "1.4", Login())


@pytest.mark.parametrize("way", ["basic", "token"])
def test_a_wrong_login_is_named_without_its_password(server: Any, way: str) -> None:
    server.way = way
    with pytest.raises(AppError, match=r"refuses .* to fetcher; check `registry`") as error:
        resolve("ocr", server.name, "1.4", Login("fetcher", "wrong-one"))
    assert "wrong-one" not in str(error.value)


def test_a_login_is_not_given_to_a_server_that_the_registry_names_without_encryption(server: Any) -> None:
    server.way = "elsewhere"
    with pytest.raises(AppError, match="refuses"):
        resolve("ocr", server.name, "1.4", FETCHER)


def test_an_unknown_tag_is_said_with_the_tags_there_are(server: Any) -> None:
    with pytest.raises(AppError, match=r"has no .*/ocr:9; it has the tags 1\.3, 1\.4; check `image`"):
        resolve("ocr", server.name, "9", Login())
    with pytest.raises(AppError, match="it has no such image at all"):
        resolve("ocr", server.name.replace("/ocr", "/none"), "9", Login())


def test_a_registry_that_is_ill_for_a_moment_is_asked_again(server: Any) -> None:
    server.broken = 2
    assert resolve("ocr", server.name, "1.4", Login()) == DIGEST
    server.broken = 9
    with pytest.raises(AppError, match="HTTP 503; try again"):
        resolve("ocr", server.name, "1.4", Login())


def test_a_registry_that_is_down_is_said_to_be() -> None:
    with pytest.raises(AppError, match=r"cannot ask 127\.0\.0\.1:1 about .*refused; check that the droplet reaches it"):
        resolve("ocr", "127.0.0.1:1/ocr", "1.4", Login())


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ssl.SSLCertVerificationError(1, "bad"), "does not trust its certificate"),
        (OSError(-2, "Name or service not known"), "cannot resolve that name"),
    ],
)
def test_what_keeps_a_registry_from_being_asked_is_explained(error: OSError, said: str) -> None:
    def fail(_request: urllib.request.Request) -> Any:
        raise urllib.error.URLError(error)

    with pytest.raises(AppError, match=said):
        resolve("ocr", "registry.test/ocr", "1.4", Login(), fail)


def test_a_version_that_is_neither_tag_nor_digest_is_refused() -> None:
    with pytest.raises(AppError, match="is no tag and no digest"):
        resolve("ocr", "registry.test/ocr", "../1.4", Login())


def test_docker_s_own_registry_is_asked_where_it_answers() -> None:
    asked = []

    def answer(request: urllib.request.Request) -> Any:
        asked.append(request.full_url)
        said = email.message.Message()
        said["Docker-Content-Digest"] = DIGEST
        return urllib.response.addinfourl(io.BytesIO(), said, request.full_url)

    assert resolve("web", "nginx", "1.27", Login(), answer) == DIGEST
    assert asked == ["https://registry-1.docker.io/v2/library/nginx/manifests/1.27"]
