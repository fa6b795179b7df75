"""Checks of single values. Each returns what it finds wrong and what would do, or nothing."""

from __future__ import annotations

import base64
import binascii
import contextlib
import ipaddress
import re
import shlex
import struct
from urllib.parse import urlsplit

from ..module_utils import app_deploy_key
from .names import is_address, is_hostname
from .problems import Fault, count, describe, meant, quoted
from .schema import Check
from .site import LONGEST_PASSWORD, split_domain

EMAIL = re.compile(r"[^@\s]+@([^@\s]+)")
# RFC 2606 and 6761. `.test` is missing on purpose: a laboratory may use it, no template does.
EXAMPLE_DOMAINS = ("example.com", "example.net", "example.org", "example", "invalid")
EXAMPLE_NETWORKS = [
    ipaddress.ip_network(network) for network in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")
]
# What templates and plans leave to be filled in. Sentences must pass: an environment holds texts for people, too.
PLACEHOLDER = re.compile(
    r"""^<[^<>@]*>$ | ^\[[a-z _-]+\]$ | ^x{3,}$ | ^\*+$ | ^\.{3,}$ | ^…$ | (^|[:/@\s])your[-_]
      | \bchange[-_]?(me|this)\b | \breplace[-_]?(me|this|with)\b | ^(insert|enter|put)[-_](your|the|a)\b
      | ^(todo|fixme|tbd|placeholder|dummy)$""",
    re.IGNORECASE | re.VERBOSE,
)
# Where a secret belongs, these are fillers as well.
SECRET_PLACEHOLDER = re.compile(r"…|\.\.\.$|x{4,}|example|^(secret|password|passwort|replace)\W*$", re.IGNORECASE)
SECRET_WORDS = {"SECRET", "PASSWORD", "PASSWD", "PASSPHRASE", "TOKEN", "KEY", "SALT"}
OPEN_WORDS = {"PUBLIC", "PUBLISHABLE", "SITE"}
# Another service chose these, and its user cannot make them longer.
FOREIGN_WORDS = {"SMTP", "MAIL", "EMAIL", "IMAP", "LDAP", "API"}

KEY_TYPES = (
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
)
PUBLIC_KEY = "one line of a public key file, as `cat ~/.ssh/id_ed25519.pub` prints it"

DEPLOY_KEY = (
    "a private key without a passphrase, kept with ansible-vault: `ssh-keygen -t ed25519 -N '' -f deploy_key`,"
    " and deploy_key.pub for the repository's deploy keys"
)
GENERATE = "the real one, or a new one from `openssl rand -hex 32`, kept with ansible-vault"
ISSUED = "the one that the service gave you, kept with ansible-vault"


def example_domain(name: str) -> bool:
    """Whether this name is reserved for examples, so that nobody can own it."""
    lowered = name.lower().rstrip(".")
    return any(lowered == domain or lowered.endswith(f".{domain}") for domain in EXAMPLE_DOMAINS)


def example_address(value: str) -> bool:
    """Whether this address is reserved for documentation, so that no machine has it."""
    return is_address(value) and any(ipaddress.ip_address(value) in network for network in EXAMPLE_NETWORKS)


def matches(pattern: str, wanted: str) -> Check:
    """A check that the whole text matches a pattern."""
    compiled = re.compile(pattern)

    def check(value: str) -> Fault | None:
        return None if compiled.fullmatch(value) else Fault(describe(value), wanted)

    return check


def placeholder(value: str) -> Fault | None:
    """A template's filler; it is not shown, since it may be half a secret."""
    return Fault("a placeholder", "the real value") if PLACEHOLDER.search(value) else None


def domain(value: str) -> Fault | None:
    """A name for a site: hostname, wildcard or address."""
    if is_address(value):
        wanted = "the droplet's public address, or better a domain that points to it"
        return Fault(f"{value}, an address reserved for documentation", wanted) if example_address(value) else None
    if "://" in value or "/" in value:
        return Fault(f"{quoted(value)}, a URL", f"the hostname alone: {quoted(urlsplit(value).hostname or 'name')}")
    value = value.removeprefix("*.")
    if not value.isascii():
        try:
            wanted = f"its ASCII form: {value.encode('idna').decode()}"
        except UnicodeError:
            wanted = "its ASCII form, which begins with xn--"
        return Fault(f"{quoted(value)}, which is no hostname", wanted)
    if not is_hostname(value):
        wanted = "a hostname such as api.example.com: letters, digits and hyphens, with a dot"
        return Fault(f"{quoted(value)}, which is no hostname", wanted)
    if example_domain(value):
        return Fault(f"{value}, a domain reserved for examples", "a domain of yours that points to the proxy's address")
    return None


def site_domain(value: str) -> Fault | None:
    """A name for a site, alone or with the path at which the site is."""
    name, path = split_domain(value)
    if not path or "://" in value:
        return domain(value)
    if fault := domain(name):
        return fault
    if is_address(name):
        return Fault(f"{quoted(value)}, a path on an address", "a domain: an address is one site's alone")
    if not re.fullmatch(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+", path):
        wanted = "the domain with a path below /, such as example.com/api, with no slash at its end and no hidden part"
        return Fault(quoted(value), wanted)
    return None


def hostname(value: str) -> Fault | None:
    """A name to redirect from."""
    if is_address(value):
        return Fault(f"the address {value}", "a hostname; only `domains` may be an address")
    return domain(value)


def email(value: str) -> Fault | None:
    """An address for mail."""
    match = EMAIL.fullmatch(value)
    if not match or not is_hostname(match[1]):
        return Fault(f"{quoted(value)}, which is no email address", "an address such as ops@example.com")
    if example_domain(match[1]):
        return Fault(f"{value}, at a domain reserved for examples", "an address that you read")
    return None


def https_url(value: str) -> Fault | None:
    """A URL to which secrets may be sent."""
    parts = urlsplit(value)
    if parts.scheme != "https" or not parts.hostname:
        return Fault(f"{quoted(parts.scheme + '://…' if parts.scheme else value)}", "a URL that begins with https://")
    if example_domain(parts.hostname):
        return Fault(f"a URL at {parts.hostname}, reserved for examples", "the real URL")
    return None


def secret_https_url(value: str) -> Fault | None:
    """A URL that is itself a secret, such as a webhook's."""
    if fault := placeholder(value):
        return fault
    return Fault("a value that is no https URL", "a URL that begins with https://") if https_url(value) else None


def git_url(value: str) -> Fault | None:
    """A repository's address."""
    if placeholder(value):
        return Fault(f"{quoted(value)}, a placeholder", "the address of your repository")
    parts = urlsplit(value)
    host = parts.hostname
    if parts.scheme in {"https", "http"} and (parts.username or parts.password):
        return Fault("a URL with a login in it", "the URL without it: it would stand in logs and process lists")
    if parts.scheme in {"ssh", "git+ssh"} and parts.password:
        return Fault("a URL with a password in it", "the URL without it: over ssh, `deploy_key` is the login")
    host = host or app_deploy_key.server_of(value)[0]
    if not host or (parts.scheme and parts.scheme not in {"https", "ssh", "git+ssh"}):
        return Fault(quoted(value), "https://host/path.git, or git@host:path.git")
    if example_domain(host):
        return Fault(f"{quoted(value)}, at a domain reserved for examples", "the address of your repository")
    return None


def deploy_key(value: str) -> Fault | None:
    """A private key that can be used while nobody is there to type its passphrase."""
    if placeholder(value):
        return Fault("a placeholder", DEPLOY_KEY)
    found = app_deploy_key.fault(value)
    if "whose lines became one" in found:
        return Fault(
            found, "the file as it is, line by line: `|` behind the variable in the vault, and the lines indented"
        )
    return Fault(found, DEPLOY_KEY) if found else None


def host_key(value: str) -> Fault | None:
    """The key by which a git server is known."""
    if "PRIVATE KEY" in value:
        return Fault("a private key", "the public key of the server, as `ssh-keyscan -t ed25519 HOST` prints it")
    key = app_deploy_key.host_key_of(value)
    if not key or len([line for line in value.splitlines() if line and not line.startswith("#")]) > 1:
        return Fault(quoted(value), "one line as `ssh-keyscan -t ed25519 HOST` prints it: ssh-ed25519 AAAA…")
    return public_key(key)


def network(value: str) -> Fault | None:
    """An address, or a network."""
    try:
        ipaddress.ip_network(value)
    except ValueError:
        with contextlib.suppress(ValueError):
            return Fault(quoted(value), f"the network itself: {ipaddress.ip_network(value, strict=False)}")
        return Fault(quoted(value), "an address such as 198.51.100.7, or a network such as 10.0.0.0/8")
    return None


def basic_password(value: str) -> Fault | None:
    """A password that a browser is asked for: bcrypt looks at no more than 72 bytes."""
    if len(value.encode()) > LONGEST_PASSWORD:
        return Fault(
            f"a value of {len(value.encode())} bytes", f"{LONGEST_PASSWORD} bytes at most: bcrypt looks at no more"
        )
    return strong(12)(value)


def url_path(value: str) -> Fault | None:
    """The path of a URL."""
    if re.fullmatch(r"/[^\s\"';{}]*", value):
        return None
    example = re.sub(r"[^a-z]", "", value.lower()) or "health"
    return Fault(quoted(value), f"a path that begins with / and has no spaces, such as /{example}")


def relative_path(value: str) -> Fault | None:
    """A folder inside a repository."""
    if value.startswith("/") or ".." in value.split("/"):
        return Fault(quoted(value), "a folder inside the repository, such as backend")
    return None


def absolute_path(value: str) -> Fault | None:
    """A path on the droplet."""
    if not value.startswith("/") or ".." in value.split("/"):
        return Fault(quoted(value), "an absolute path on the droplet, such as /srv/malar-api/uploads")
    return None


def shell(value: str) -> Fault | None:
    """A line that a shell reads."""
    try:
        shlex.split(value)
    except ValueError:
        return Fault("a command with a quote that is not closed", "the closing quote")
    return None


def command(value: str) -> Fault | None:
    """The one command of a service. A shell expands its variables and is replaced by it: nothing can follow."""
    if fault := shell(value):
        return fault
    if "\n" in value.strip():
        return Fault("a command of several lines", "one command; put more into a script of the repository")
    words = shlex.split(value)
    if words[:1] and words[0].rsplit("/", 1)[-1] in {"sh", "bash"}:
        return None
    if words[:1] and re.match(r"[A-Za-z_]\w*=", words[0]):
        return Fault("a command that begins with a variable", f"`{words[0].split('=')[0]}` in `env`")
    joints = [word for word in words if word in {"&&", "||", "|", ";", "&"} or word.endswith(";")]
    if joints:
        wanted = "one command: what follows would never start. Put more into a script of the repository"
        return Fault(f"a command with {quoted(joints[0])}", wanted)
    return None


def public_key(value: str) -> Fault | None:
    """A public SSH key that sshd will accept."""
    if "PRIVATE KEY" in value:
        wanted = f"the public one: {PUBLIC_KEY}. Replace that pair, since a private key must stay where it was made"
        return Fault("a private key", wanted)
    words = value.split()
    if PLACEHOLDER.search(value) or "…" in value or "..." in value or re.fullmatch(r"\S+ AAAA\S{0,20}( .*)?", value):
        return Fault("a placeholder", PUBLIC_KEY)
    if "\n" in value.strip() or len(words) < 2 or words[0] not in KEY_TYPES:
        guess = meant(words[0], KEY_TYPES, 0.8) if words else ""
        old = " (DSA is no longer accepted by sshd)" if words[:1] == ["ssh-dss"] else ""
        return Fault(quoted(value), f"{PUBLIC_KEY}{old}" + (f"; did you mean `{guess}`?" if guess else ""))
    try:
        fields = _fields(base64.b64decode(words[1], validate=True))
    except (binascii.Error, struct.error, ValueError):
        return Fault(f"a {words[0]} key that is damaged or cut short", PUBLIC_KEY)
    inner = fields[0].decode(errors="replace")
    if inner != words[0]:
        return Fault(f"a key that says {words[0]} and is {quoted(inner)} inside", PUBLIC_KEY)
    if words[0] == "ssh-ed25519" and len(fields[-1]) != 32:
        return Fault(f"a {words[0]} key that is damaged or cut short", PUBLIC_KEY)
    return None


def _fields(blob: bytes) -> list[bytes]:
    """The fields of a key as RFC 4253 encodes them; ValueError unless they fill it exactly."""
    fields = []
    while blob:
        (size,) = struct.unpack(">I", blob[:4])
        if size > len(blob) - 4:
            raise ValueError("cut short")
        fields.append(blob[4 : 4 + size])
        blob = blob[4 + size :]
    if len(fields) < 2:
        raise ValueError("too few fields")
    return fields


def schedule(value: str) -> Fault | None:
    """Five fields as cron reads them."""
    wanted = 'five fields, as cron reads them: "0 2 * * *" is every day at 02:00'
    fields = value.split()
    if len(fields) != 5:
        return Fault(f"{quoted(value)}, which has {count(len(fields), 'field')}", wanted)
    bounds = {"minute": (0, 59), "hour": (0, 23), "day": (1, 31), "month": (1, 12), "weekday": (0, 7)}
    for entry, (name, (low, high)) in zip(fields, bounds.items()):
        for part in entry.split(","):
            match = re.fullmatch(r"(?:\*|(\d+)(?:-(\d+))?)(?:/([1-9]\d*))?", part)
            numbers = [int(number) for number in (match[1], match[2]) if number] if match else []
            if not match or any(not low <= number <= high for number in numbers) or numbers != sorted(numbers):
                return Fault(f'{quoted(value)}, whose {name} is "{entry}"', f"{wanted}; the {name} is {low}-{high}")
    return None


def strong(least: int = 16, wanted: str = GENERATE) -> Check:
    """A check that a secret is long and varied enough that it cannot be guessed."""

    def check(value: str) -> Fault | None:
        if PLACEHOLDER.search(value) or SECRET_PLACEHOLDER.search(value):
            return Fault("a placeholder", wanted)
        if any(character.isspace() and character != " " for character in value):
            return Fault("a value of several lines", "one line")
        if len(value) < least:
            return Fault(f"a value of {count(len(value), 'character')}", f"{least} characters at least; {wanted}")
        if len(set(value)) < min(5, least):
            return Fault(f"a value of {len(set(value))} different characters", wanted)
        return None

    return check


def environment_value(name: str) -> Check:
    """A check for the value of an environment variable, stricter where the name says that it is a secret."""
    words = set(name.upper().split("_"))
    last = name.upper().removesuffix("_BASE").rsplit("_", 1)[-1]
    secret = last in SECRET_WORDS and not words & OPEN_WORDS
    strength = strong(8, ISSUED) if words & FOREIGN_WORDS else strong()

    def check(value: str) -> Fault | None:
        if "\n" in value or "\r" in value or "\0" in value:
            wanted = "one line: an environment file has no other. Encode it, for example as base64"
            return Fault("a value of several lines", wanted)
        if secret:
            return strength(value)
        return placeholder(value)

    return check
