"""Git over ssh: with a key of the repository's own, to a server that is known by its host key.

The key is on the droplet while git talks to the server, and no longer: in /run, readable for the app's user alone, in a
folder that the process at work holds locked. What a killed one has left nobody holds, and the next run removes it.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import fcntl
import os
import re
import shlex
import shutil
import struct
import tempfile
from typing import Iterator
from urllib.parse import urlsplit

from ansible_collections.shipshape.droplet.plugins.module_utils.app_system import Account, AppError, run, write_file

#: Gone with the next boot.
FOLDER = "/run/shipshape"
PREFIX = "deploy-key-"
#: As docs.github.com, docs.gitlab.com and bitbucket.org/site/ssh publish them.
WELL_KNOWN = {
    "github.com": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl",
    "gitlab.com": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAfuCHKVTjquxvt6CM6tdG4SLp1Btn/nOeHHE5UOzRdf",
    "bitbucket.org": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIazEu89wgQZ4bqs3d63QSMzYVa0MuJ2e2gKTKqu+UUO",
}
_SHORT = re.compile(r"(?:[\w.-]+@)?(\[[0-9A-Fa-f:.]+\]|[\w.-]+):(?!//)\S+")
_ARMOUR = re.compile(r"-----BEGIN ((?:[A-Z0-9]+ )*)PRIVATE KEY-----\n(.*?)\n-----END \1PRIVATE KEY-----", re.DOTALL)
_MAGIC = b"openssh-key-v1\0"
#: Nobody is there to answer, and nothing that a person has set up counts.
OPTIONS = {
    "BatchMode": "yes",
    "IdentitiesOnly": "yes",
    "IdentityAgent": "none",
    "PreferredAuthentications": "publickey",
    "StrictHostKeyChecking": "yes",
    "GlobalKnownHostsFile": "/dev/null",
    "UpdateHostKeys": "no",
    "ConnectTimeout": "20",
    "ServerAliveInterval": "15",
}


def server_of(url: str) -> tuple[str, int]:
    """(host, port) of a repository that is reached over ssh, or ("", 0): ssh://git@host:22/path or git@host:path."""
    parts = urlsplit(url)
    if parts.scheme in ("ssh", "git+ssh"):
        return parts.hostname or "", parts.port or 22
    match = None if "://" in url else _SHORT.fullmatch(url)
    return (match.group(1).strip("[]").lower(), 22) if match else ("", 0)


def how_to_get_host_key(host: str, port: int) -> str:
    where = f"-p {port} {host}" if port != 22 else host
    return f"`ssh-keyscan -t ed25519 {where}` prints it; compare it with what the provider's page says"


def host_key_of(text: str) -> str:
    """Type and key of a line as ssh-keyscan, a public key file or a known_hosts has it; nothing if there is none."""
    words = text.split()
    for kind, key in zip(words, words[1:]):
        if key.startswith("AAAA") and re.fullmatch(r"(ssh|ecdsa)-[\w-]+", kind):
            return f"{kind} {key}"
    return ""


def normal(key: str) -> str:
    """A private key with the line ends that ssh wants."""
    return "\n".join(line.strip() for line in key.strip().splitlines()) + "\n" if key.strip() else ""


def fault(key: str) -> str:
    """What a deploy key is instead of a private key that can be used; nothing for a good one."""
    if host_key_of(key) and "PRIVATE" not in key:
        return "a public key"
    if "PRIVATE KEY" not in key:
        return "no private key"
    if "\n" not in key.strip():
        return "a private key whose lines became one"
    match = _ARMOUR.search(normal(key))
    if not match:
        return "a private key that is cut short"
    if "ENCRYPTED" in key:
        return "a private key with a passphrase"
    try:
        blob = base64.b64decode("".join(match.group(2).split()), validate=True)
        if match.group(1) != "OPENSSH ":
            return ""
        cipher, _public = _opened(blob)
    except (binascii.Error, struct.error, ValueError):
        return "a private key that is damaged or cut short"
    return "" if cipher == b"none" else "a private key with a passphrase"


def _opened(blob: bytes) -> tuple[bytes, bytes]:
    """(how it is encrypted, the public half) of OpenSSH's own form; ValueError unless it is whole."""
    if not blob.startswith(_MAGIC):
        raise ValueError("another form")
    rest = blob[len(_MAGIC) :]

    def take(rest: bytes) -> tuple[bytes, bytes]:
        (size,) = struct.unpack(">I", rest[:4])
        if size > len(rest) - 4:
            raise ValueError("cut short")
        return rest[4 : 4 + size], rest[4 + size :]

    cipher, rest = take(rest)
    for _ in ("kdf", "its options"):
        _skipped, rest = take(rest)
    public, rest = take(rest[4:])
    take(rest)
    return cipher, public


def clear() -> None:
    """Remove the keys of runs that were killed."""
    try:
        names = [name for name in os.listdir(FOLDER) if name.startswith(PREFIX)]
    except FileNotFoundError:
        return
    for name in names:
        path = os.path.join(FOLDER, name)
        with contextlib.suppress(FileNotFoundError, BlockingIOError):
            handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path)
            finally:
                os.close(handle)


@contextlib.contextmanager
def _folder() -> Iterator[str]:
    """One that is ours as long as we live; root's, so that the app's user can put nothing in another's place."""
    os.makedirs(FOLDER, mode=0o755, exist_ok=True)
    made = tempfile.mkdtemp(prefix=".new-", dir=FOLDER)
    handle = os.open(made, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.chmod(made, 0o711)
        # Locked before it has the name under which others look for what is left.
        fcntl.flock(handle, fcntl.LOCK_EX)
        path = os.path.join(FOLDER, PREFIX + os.path.basename(made)[len(".new-") :])
        os.rename(made, path)
        try:
            yield path
        finally:
            shutil.rmtree(path)
    finally:
        os.close(handle)


class Access:
    """How one app's repository is reached: as anybody reaches it, or over ssh with a deploy key."""

    def __init__(self, key: str = "", host_key: str = "") -> None:
        self.key, self.host_key, self.public = normal(key), host_key_of(host_key), ""

    @contextlib.contextmanager
    def environment(self, app: str, account: Account, url: str) -> Iterator[dict[str, str]]:
        """What git needs in its environment, as long as it talks to the server."""
        host, port = server_of(url)
        if not self.key or not host:
            yield {}
            return
        known = self.host_key or WELL_KNOWN.get(host, "")
        if not known:
            raise AppError(
                app,
                "source",
                f"source.host_key is missing, by which {host} is known: {how_to_get_host_key(host, port)}",
            )
        problem = fault(self.key)
        if problem:
            raise AppError(app, "source", f"source.deploy_key is {problem}; give a private key without a passphrase")
        with _folder() as folder:
            key, hosts = os.path.join(folder, "key"), os.path.join(folder, "known_hosts")
            write_file(key, self.key, 0o600, account.uid, account.gid)
            write_file(hosts, f"{host} {known}\n", 0o644)
            _code, said = run(account, ["ssh-keygen", "-y", "-P", "", "-f", key])
            self.public = host_key_of(said)
            # By its name alone: a port, or another address, makes no other server of it.
            options = {**OPTIONS, "IdentityFile": key, "UserKnownHostsFile": hosts, "HostKeyAlias": host}
            words = ["ssh", "-F", "/dev/null", *(f"-o{name}={value}" for name, value in options.items())]
            yield {"GIT_SSH_COMMAND": " ".join(map(shlex.quote, words)), "GIT_SSH_VARIANT": "ssh"}

    def explain(self, output: str, url: str) -> str:
        """What to do about the usual reasons for which a server says no over ssh; nothing about any other."""
        host, port = server_of(url)
        if not host:
            return ""
        if not self.key:
            return "over ssh the app needs source.deploy_key; or take an https URL in source.git"
        if "Host key verification failed" in output:
            found = re.search(r"SHA256:[A-Za-z0-9+/]{43}", output)
            shown = f" ({found.group(0)})" if found else ""
            whose = "source.host_key" if self.host_key else "the one that its provider publishes"
            return (
                f"{host} shows another host key{shown} than {whose}, so nothing was asked of it. If the server has"
                f" a new one, change source.host_key: {how_to_get_host_key(host, port)}"
            )
        if "Permission denied" in output:
            half = f": {self.public}" if self.public else ""
            return (
                f"{host} does not accept the deploy key; add its public half to the repository's deploy keys, to read"
                f" is enough{half}"
            )
        silent = re.search(r"connect to (?:host|address) \S+ port \d+: (.+)", output)
        if silent:
            said = silent.group(1).strip()
            return f"{host} does not answer on port {port} ({said}); is it up, and does the droplet reach it?"
        missing = ("not found", "could not be found", "does not exist", "does not appear to be a git repository")
        if any(words in output for words in missing):
            return "there is no such repository, or the deploy key is another one's; check source.git"
        return ""
