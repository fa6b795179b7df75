"""Which image a tag stands for, as its registry says: asked over HTTP, so that nothing is installed or fetched."""

from __future__ import annotations

import base64
import json
import re
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any, Callable, Mapping

from ansible_collections.shipshape.droplet.plugins.module_utils.app_system import AppError

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_PART = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
_HOST = r"(?:localhost|[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+|[A-Za-z0-9-]+(?=:\d))(?::\d{1,5})?"
_NAME = re.compile(rf"(?:(?P<host>{_HOST})/)?(?P<path>{_PART}(?:/{_PART})*)")

HUB = "docker.io"
#: Docker's own registry answers elsewhere, and its logins are kept under a name of old.
HUB_HOST = "registry-1.docker.io"
HUB_LOGIN = "https://index.docker.io/v1/"

MANIFESTS = ", ".join(
    [
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    ]
)
ATTEMPTS = 3
PATIENCE = 10.0


@dataclass(frozen=True)
class Image:
    """Where an image is kept, without the tag or digest."""

    host: str
    path: str

    @property
    def name(self) -> str:
        return f"{self.host}/{self.path}"


@dataclass(frozen=True)
class Login:
    """Who may fetch; nobody in particular, when empty."""

    username: str = ""
    password: str = ""

    @property
    def basic(self) -> str:
        return base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


def image_of(name: str) -> Image:
    """The place that a name like `registry.example.com/team/ocr` or `nginx` means to Docker."""
    found = _NAME.fullmatch(name)
    if found is None:
        raise ValueError(f"{name!r} is no image's name")
    host, path = found["host"] or HUB, found["path"]
    return Image(host, path if host != HUB or "/" in path else f"library/{path}")


def split(reference: str) -> tuple[str, str]:
    """Name and version of `registry.example.com:5000/ocr:1.4`; a version is a tag, a digest, or both."""
    name, at, digest = reference.partition("@")
    head, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        head, tag = name, ""
    return head, tag + at + digest if tag else digest


def digest_of(version: str) -> str:
    """The digest that a version names itself, or nothing. Where it does, its tag is for people, as with Docker."""
    digest = version.rpartition("@")[2]
    return digest if DIGEST.fullmatch(digest) else ""


def docker_config(image: Image, login: Login) -> str:
    """The file that gives this login to Docker's client, and to no other registry than the image's."""
    server = HUB_LOGIN if image.host == HUB else image.host
    return json.dumps({"auths": {server: {"auth": login.basic}} if login.username else {}})


def challenge_of(header: str) -> tuple[str, dict[str, str]]:
    """Kind and parameters of a WWW-Authenticate header."""
    kind, _, rest = header.partition(" ")
    return kind.lower(), dict(re.findall(r'(\w+)="([^"]*)"', rest))


class Refused(Exception):
    """The registry wants another login, or any."""


class Missing(Exception):
    """The registry does not have it."""


Opener = Callable[[urllib.request.Request], Any]


def _open(request: urllib.request.Request) -> Any:
    return urllib.request.urlopen(request, timeout=PATIENCE)


class Registry:
    """Asks one registry about one image."""

    def __init__(self, image: Image, login: Login, opener: Opener = _open) -> None:
        self.image, self.login, self.opener = image, login, opener
        host = HUB_HOST if image.host == HUB else image.host
        # As Docker has it: only on the machine itself may a registry do without encryption.
        local = host.partition(":")[0] in ("localhost", "127.0.0.1")
        self.base = f"{'http' if local else 'https'}://{host}/v2/{image.path}"
        self.authorization = ""

    def _request(self, method: str, url: str, headers: Mapping[str, str]) -> Any:
        request = urllib.request.Request(url, method=method)
        for name, value in headers.items():
            # Not handed on to wherever an answer may lead: a login is for this server.
            request.add_unredirected_header(name, value)
        return self.opener(request)

    def ask(self, method: str, path: str) -> Any:
        """The registry's answer. It says by its first refusal which kind of login it takes."""
        headers = {"Accept": MANIFESTS, "User-Agent": "shipshape"}
        for last in (False, True):
            with_login = {**headers, "Authorization": self.authorization} if self.authorization else headers
            try:
                return self._request(method, self.base + path, with_login)
            except urllib.error.HTTPError as error:
                if error.code == 401 and not last:
                    self.authorization = self._authorize(error.headers.get("WWW-Authenticate") or "")
                    continue
                if error.code in (401, 403):
                    raise Refused(f"HTTP {error.code}") from error
                if error.code == 404:
                    raise Missing from error
                raise
        raise AssertionError("unreachable")

    def _authorize(self, header: str) -> str:
        kind, given = challenge_of(header)
        basic = f"Basic {self.login.basic}" if self.login.username else ""
        if kind == "basic" and basic:
            return basic
        realm = given.get("realm", "")
        if kind != "bearer" or not realm.startswith(("https://", self.base.partition("/v2/")[0] + "/")):
            raise Refused("HTTP 401")
        query = {"scope": f"repository:{self.image.path}:pull"}
        if "service" in given:
            query["service"] = given["service"]
        headers = {"Authorization": basic} if basic else {}
        try:
            with self._request("GET", f"{realm}?{urllib.parse.urlencode(query)}", headers) as answer:
                said = json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code in (400, 401, 403):
                raise Refused(f"HTTP {error.code}") from error
            raise
        except ValueError as error:
            raise Refused("an answer without a token") from error
        return "Bearer {}".format(said.get("token") or said.get("access_token") or "")

    def digest(self, tag: str) -> str:
        """The digest of a tag; nothing is fetched, and a registry counts it as no pull."""
        with self.ask("HEAD", f"/manifests/{urllib.parse.quote(tag)}") as answer:
            return str(answer.headers.get("Docker-Content-Digest") or "")

    def tags(self) -> list[str]:
        """What it has, for a message; nothing when it does not say."""
        try:
            with self.ask("GET", "/tags/list") as answer:
                return [str(tag) for tag in json.load(answer).get("tags") or []]
        except (Refused, Missing, OSError, ValueError):
            return []


def resolve(app: str, name: str, version: str, login: Login, opener: Opener = _open) -> str:
    """The digest that a version of an image stands for, or a message that says what to do."""
    fixed = digest_of(version)
    if fixed:
        return fixed
    image = image_of(name)
    if not TAG.fullmatch(version):
        raise AppError(app, "image", f"version {version!r} is no tag and no digest (sha256:…) of {name}")
    registry = Registry(image, login, opener)
    reason: Any = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(attempt)
        try:
            digest = registry.digest(version)
        except Refused as error:
            raise AppError(app, "image", f"{refusal(name, version, login, image)} ({error})") from error
        except Missing as error:
            tags = ", ".join(sorted(registry.tags())[-8:])
            has = f"it has the tags {tags}" if tags else "it has no such image at all"
            raise AppError(app, "image", f"{image.host} has no {name}:{version}; {has}; check `image`") from error
        except OSError as error:
            reason = error
            if isinstance(getattr(error, "reason", error), ssl.SSLCertVerificationError):
                break
            continue
        if DIGEST.fullmatch(digest):
            return digest
        reason = "it does not say which digest that is"
        break
    raise AppError(app, "image", f"cannot ask {image.host} about {name}:{version}: {explain(reason)}")


def refusal(name: str, version: str, login: Login, image: Image) -> str:
    """What to do when a registry says no."""
    shown = f"{name}{'@' if DIGEST.fullmatch(version) else ':'}{version}"
    if login.username:
        return (
            f"{image.host} refuses {shown} to {login.username}; check `registry` of the app and its password in the "
            "vault, whether that account may fetch the image, and whether there is such an image"
        )
    return (
        f"{image.host} wants a login for {shown}, or has no such image; give the app "
        "`registry: {username: …, password: …}`, the password from the vault, and check `image`"
    )


def explain(reason: Any) -> str:
    """Why a registry could not be asked, and where to look."""
    inner = getattr(reason, "reason", reason)
    text = " ".join(str(inner).split())
    if isinstance(inner, ssl.SSLCertVerificationError):
        return f"the droplet does not trust its certificate ({text}); add its authority to the droplet"
    if isinstance(reason, urllib.error.HTTPError):
        return f"HTTP {reason.code}; try again when the registry is well"
    if "Name or service not known" in text or "name resolution" in text or "No address associated" in text:
        return f"the droplet cannot resolve that name ({text}); check `image`"
    return f"{text}; check that the droplet reaches it, and try again"
