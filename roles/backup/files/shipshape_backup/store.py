"""The repository: restic with the words it lacks."""

from __future__ import annotations

import contextlib
import datetime
import functools
import hashlib
import http.client
import json
import os
import re
import shlex
import signal
import ssl
import subprocess
import threading
import time
import urllib.parse
from pathlib import Path
from typing import IO, Any, Callable, Iterable, Iterator, Optional

from shipshape_backup.unattended import DISK_FULL, Failure, Stopped, scratch, too_full

CHUNK = 1 << 20
OPEN_TIMEOUT = 60  # seconds until a store that says nothing counts as unreachable
LIST_TIMEOUT = 20  # seconds until a list that does not come is a reason to ask whether the store answers at all
# Restic waits for what a connection does not bring any more: a quarter of an hour, or for ever where that stays open.
# Seconds between two questions to the store, for its answer, and without one until a run is ended:
ASK_EVERY, ASK_TIMEOUT, AWAY_AFTER = 30, 20, 300
MARK, UNVERIFIED, FILES = "shipshape", "unverified", "files"

FULL = "the bucket is full: its quota is used up"
LOCKED = "another process holds the repository"
UNREACHABLE = "the store cannot be reached. Check endpoint of backup_s3 and the network"
DAMAGED = "an object of the repository is damaged"
#: What restic says, and what that means to the person who has to do something about it. The first match counts.
MEANINGS = (
    (r"no space left on device", DISK_FULL),
    (r"wrong password or no key found|status 12\b",
     "the repository exists and backup_password does not open it. Give the password it was made with"),
    (r"quota ?exceeded|StorageFull|minimum free drive threshold|Insufficient Storage",
     f"{FULL}. Nothing that was stored is lost, and it can be restored. Raise the quota at the provider of the store"),
    (r"RequestTimeTooSkewed|difference between the request time",
     "this host's clock is wrong, so the store refuses what it signs. Set the clock: timedatectl"),
    (r"Access Key Id|InvalidAccessKeyId|signature we calculated|SignatureDoesNotMatch|Access ?Denied|Forbidden",
     "the store refuses the keys. Check access_key and secret_key of backup_s3, and what they may do with the bucket"),
    (r"region .* is wrong|AuthorizationHeaderMalformed|400 Bad Request|301 Moved Permanently",
     "the bucket is in another region. Check region of backup_s3"),
    (r"x509: certificate has expired or is not yet valid: current time \S+ is before",
     "the store's certificate is not valid yet, so this host's clock is behind. Set it: timedatectl"),
    (r"x509: certificate has expired",
     "the store's certificate has expired. Whoever runs the store has to renew it; or this host's clock is ahead: "
     "timedatectl"),
    (r"x509:|certificate", "the store's certificate is not trusted. Check it, this host's clock and CA certificates"),
    (r"no such host|connection refused|no route to host|network is unreachable|i/o timeout|timed out|deadline exceeded|"
     r"connection reset|server misbehaving|Bad Gateway|Service Unavailable|Gateway Time",
     UNREACHABLE),
    (r"already locked|status 11\b", f"{LOCKED}. If none does: shipshape-backup unlock"),
    (r"ciphertext verification failed|pack ID does not match|hash mismatch|invalid hash|does not match id|damaged pack",
     f"{DAMAGED}, and what depends on it cannot be restored; shipshape-backup check "
     "--read-data says what else is. Begin a new repository beside this one by another backup_prefix, and keep this "
     "one for what is whole in it"),
    (r"bucket does not exist|NoSuchBucket", "the bucket does not exist"),
    (r"unsupported repository version", "the repository was made by a newer restic. Choose another backup_prefix here"),
)  # fmt: skip
#: Of these, so many from the first on do not change by trying again.
LASTING = 9
ABSENT = re.compile(
    r"specified key does not exist|bucket does not exist|NoSuchBucket|config file does not exist|"
    r"repository does not exist|config: no such file or directory"
)
# What restic 0.11 says of a restore that is not whole, and ends with 0.
NOT_ALL = re.compile(r"^There were \d+ errors$", re.MULTILINE)
# Restic tries again for a minute, from 0.17 on for a quarter of an hour, which does not change what one of these says.
HOPELESS = re.compile("|".join([ABSENT.pattern, *(pattern for pattern, _ in MEANINGS[:LASTING])]), re.IGNORECASE)
# In the middle of a run only in what restic says of its store: what it says of files has names in it, which may be any.
GIVE_UP = re.compile(
    "returned error, retrying after [^:]*: .*(?:" + "|".join(pattern for pattern, _ in MEANINGS[:LASTING]) + ")",
    re.IGNORECASE,
)


class NotStored(Failure):
    """What was to be stored was there, and did not get into the repository."""


class Late(Failure):
    """The store says nothing, or too little."""


class Away(Stopped):
    """The store has answered, and does not any more."""


def plain(line: str) -> str:
    """What restic says of its end, which newer ones wrap up where JSON was asked for."""
    if line.startswith('{"message_type":"exit_error"'):
        with contextlib.suppress(ValueError, KeyError):
            return str(json.loads(line)["message"])
    return line


def meaning(output: str, code: int) -> str:
    """Restic's output in words of ours, followed by its own line that says so."""
    said = "\n".join(plain(line.strip()) for line in output.splitlines())
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    fatal = [line for line in lines if line.startswith("Fatal:") and "context canceled" not in line]
    retried = [line for line in lines if "retrying after" in line]
    own = (fatal[:1] or retried[-1:] or lines[-1:] or [f"restic ended with {code}"])[0]
    for pattern, words in MEANINGS:
        found = [line for line in [*fatal, *reversed(retried), *lines] if re.search(pattern, line, re.IGNORECASE)]
        if found or re.search(pattern, f" status {code} "):
            return f"{words} ({(found or [own])[0]})"
    return own


def parsed(output: str) -> Any:
    """The JSON in restic's output; older ones say a word about their cache before it."""
    begin = re.search(r"^(?:[\[{]|null)", output, re.MULTILINE)
    if not begin:
        raise Failure(f"restic answered in another form than expected: {output.strip()[:200] or 'nothing'}")
    return json.loads(output[begin.start() :])


class Settings:
    """What the role wrote: config.json to be read by anyone who may, credentials.env by root only."""

    program = "shipshape-backup"

    def __init__(self, directory: Path) -> None:
        try:
            values: dict[str, Any] = json.loads((directory / "config.json").read_text(encoding="utf-8"))
            words = shlex.split((directory / "credentials.env").read_text(encoding="utf-8"), comments=True)
            self.credentials = dict(word.split("=", 1) for word in words)
        except (OSError, ValueError) as error:
            raise Failure(f"the configuration cannot be read: {error}") from error
        self.configuration = directory
        self.repository: str = values["repository"]
        self.host: str = values["host"]
        self.databases: list[str] = values["databases"]
        self.paths: list[str] = values["paths"]
        self.exclude: list[str] = values["exclude"]
        self.keep: dict[str, int] = values["keep"]
        self.timeout_minutes: int = values["timeout_minutes"]
        self.jitter_minutes: int = values["jitter_minutes"]
        self.state = Path(values["state_directory"])
        self.cache = Path(values["cache_directory"])
        self.lock = Path(values["lock_file"])
        self.mail: str = values["mail"]
        self.server_copy: str = values["server_copy"]
        self.places: list[dict[str, str]] = values["places"]
        self.webhook = self.credentials.pop("SHIPSHAPE_WEBHOOK", "")

    def fingerprint(self) -> str:
        """Of where and with what the repository is opened."""
        text = json.dumps([self.repository, sorted(self.credentials.items())])
        salt = self.repository.encode()  # slow on purpose: a password must not be found from what is kept
        return hashlib.pbkdf2_hmac("sha256", text.encode(), salt, 100_000).hex()

    def scrub(self, text: str) -> str:
        """No secret leaves in a message, whatever a program put into its own."""
        for secret in [*self.credentials.values(), self.webhook]:
            if len(secret) >= 4:
                text = text.replace(secret, "(secret)")
        return text


def text_of(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read().decode("utf-8", "replace")


def end(process: subprocess.Popen[bytes], patience: float = 20) -> None:
    """Interrupt, so that restic takes its lock away; kill what does not listen."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def watch(restic: Restic, process: subprocess.Popen[bytes], err: IO[bytes], disks: Iterable[Path] = ()) -> None:
    """End it where it is of no use to wait on; returns at once.

    Its store says what does not change by trying again, or answers nobody; or one of `disks` has too little left.
    """

    def look() -> None:
        asked = heard = time.monotonic()
        if restic.answered is None:
            restic.answered = restic.answers()
        while process.poll() is None:
            with contextlib.suppress(OSError, ValueError):  # closed, since the process has ended meanwhile
                # Not by seek: the child writes at the same offset.
                if GIVE_UP.search(os.pread(err.fileno(), CHUNK, 0).decode("utf-8", "replace")):
                    end(process)
            full = next(filter(None, map(too_full, disks)), "")
            if full:
                restic.full = full
                end(process)
            # Who is not answered at all, as from behind a proxy that only restic knows, does not judge by it.
            if restic.answered and time.monotonic() - asked >= ASK_EVERY:
                asked = time.monotonic()
                if restic.answers():
                    heard = asked
                elif time.monotonic() - heard >= AWAY_AFTER:
                    restic.away = True
                    end(process, 1)  # its lock cannot be taken away without the store
            time.sleep(0.2)

    threading.Thread(target=look, daemon=True).start()


class Restic:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        #: What commands that only read are called with. A lock is an object, too, which a full bucket does not take.
        self.reading: list[str] = []
        #: Whether the store was heard of by `answers` in the beginning; None before that.
        self.answered: Optional[bool] = None
        #: What a watch found.
        self.away, self.full = False, ""
        #: The disk that a backup is written to, where that is one of this host.
        self.disks = [Path(settings.repository)] if settings.repository.startswith("/") else []
        self.environment = {
            "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
            "HOME": "/root",
            "RESTIC_REPOSITORY": settings.repository,
            "RESTIC_CACHE_DIR": str(settings.cache),
            **settings.credentials,
        }

    def start(self, *arguments: str, **streams: Any) -> subprocess.Popen[bytes]:
        if self.away and not self.answers():
            self.meaning("", 0)
        self.away, self.full = False, ""
        try:
            return subprocess.Popen(["restic", *arguments], env=self.environment, cwd="/", **streams)
        except FileNotFoundError as error:
            raise Failure("restic is not installed on this host") from error

    def answers(self) -> bool:
        """Whether an S3 store says anything, be it that it does not know who asks."""
        scheme, _, address = self.settings.repository.partition(":")
        place = urllib.parse.urlsplit(address)
        if scheme != "s3" or not place.hostname:
            return False
        connection = http.client.HTTPConnection(place.hostname, place.port or 80, timeout=ASK_TIMEOUT)
        if place.scheme == "https":
            trust = ssl.create_default_context()
            # It is told nothing. Whether it is the right one restic sees.
            trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
            connection = http.client.HTTPSConnection(
                place.hostname, place.port or 443, timeout=ASK_TIMEOUT, context=trust
            )
        try:
            connection.request("HEAD", "/")
            connection.getresponse()
            return True
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def meaning(self, output: str, code: int) -> str:
        """Why it ended: what a watch found, or else what it said."""
        if self.away:
            raise Away(f"{UNREACHABLE} (it answered in the beginning, and has not for {AWAY_AFTER / 60:.0f} minutes)")
        return self.full or meaning(output, code)

    def call(self, *arguments: str) -> str:
        return self._past_dead_locks(self._call, *arguments)

    def ask(self, *arguments: str) -> str:
        """Like call, for the first word to a store: gives up when trying again is of no use, or after OPEN_TIMEOUT."""
        return self._past_dead_locks(lambda *given: self._ask(OPEN_TIMEOUT, *given), *arguments)

    def _past_dead_locks(self, work: Callable[..., str], *arguments: str) -> str:
        """What a process has left locked that is dead stands in nobody's way; what a living one holds does."""
        try:
            return work(*arguments)
        except Failure as failure:
            if LOCKED not in str(failure):
                raise
        self._call("unlock")
        return work(*arguments)

    def _call(self, *arguments: str) -> str:
        with scratch() as out, scratch() as err:
            process = self.start(*arguments, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
            into = [Path(value) for option, value in zip(arguments, arguments[1:]) if option == "--target"]
            watch(self, process, err, into)
            try:
                code = process.wait()
            finally:
                end(process)
            said = text_of(err) + text_of(out)
            if code != 0 or (arguments[0] == "restore" and NOT_ALL.search(said)):
                raise Failure(self.meaning(said, code))
            return text_of(out)

    def _ask(self, timeout: float, *arguments: str) -> str:
        with scratch() as out, scratch() as err:
            process = self.start(*arguments, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
            deadline = time.monotonic() + timeout
            late = hopeless = False
            try:
                while process.poll() is None and not late and not hopeless:
                    time.sleep(0.05)
                    late = time.monotonic() > deadline
                    # Not by seek: the child writes at the same offset.
                    hopeless = bool(HOPELESS.search(os.pread(err.fileno(), CHUNK, 0).decode("utf-8", "replace")))
            finally:
                end(process, 1 if late else 20)
            if process.returncode != 0:
                said = text_of(err) + text_of(out) + (f"\ntimed out after {timeout} s" if late else "")
                raise (Late if late else Failure)(meaning(said, process.returncode))
            return text_of(out)

    def begin(self) -> tuple[list[dict[str, Any]], str, bool]:
        """All snapshots of ours, oldest first; the repository's id, if it had to be asked; whether it had to be made.

        The first word of a run to its store. What opens a repository lists it as well, and takes one start of restic.
        """
        command = self._list()
        try:
            return by_time(self._past_dead_locks(lambda *given: self._ask(LIST_TIMEOUT, *given), *command)), "", False
        except Failure as failure:
            # A store that answers may take its time over a long list.
            if not isinstance(failure, Late) and not ABSENT.search(str(failure)):
                raise
        identity, made = self.open()
        return self.snapshots(), identity, made

    def open(self, make: bool = True) -> tuple[str, bool]:
        """(the repository's id, whether it had to be made). A repository that only does not open is never made anew."""
        try:
            return str(parsed(self.ask("cat", "config"))["id"]), False
        except Failure as failure:
            if not ABSENT.search(str(failure)):
                raise
            if not make:
                raise Failure(
                    f"nothing was ever backed up to {self.settings.repository}. Backups are found by the droplet's "
                    "name in the inventory. Was it another one? Then give it that again, or say with backup_prefix: "
                    "NAME and pgbackrest_path: /pgbackrest/NAME where its backups are and shall be"
                ) from failure
        self.ask("init")
        return str(parsed(self.ask("cat", "config"))["id"]), True

    def snapshots(self, *tags: str) -> list[dict[str, Any]]:
        """Those with all the tags, oldest first."""
        command = self._list(*tags)
        try:
            out = self.call(*command, *self.reading)
        except Failure as failure:
            if FULL not in str(failure) and DISK_FULL not in str(failure):
                raise
            self.reading = ["--no-lock"]
            out = self.call(*command, *self.reading)
        return by_time(out)

    def _list(self, *tags: str) -> list[str]:
        return ["snapshots", "--json", "--tag", ",".join((MARK, *tags))]

    def read(self, snapshot: str, path: str) -> Iterator[bytes]:
        """A file's content as the repository has it; data never comes from a cache on this host."""
        with scratch() as err:
            process = self.start(
                "dump", "--no-cache", *self.reading, snapshot, path, stdout=subprocess.PIPE, stderr=err
            )
            watch(self, process, err)
            try:
                assert process.stdout
                while chunk := process.stdout.read(CHUNK):
                    yield chunk
                if process.wait() != 0:
                    raise Failure(f"{path} cannot be read back: {self.meaning(text_of(err), process.returncode)}")
            finally:
                end(process)

    def count(self, *snapshots: str) -> None:
        """Take the mark of the unverified away, after which restores see them."""
        self.call("tag", "--remove", UNVERIFIED, *snapshots)

    @functools.cached_property
    def version(self) -> tuple[int, int]:
        found = re.search(r"restic (\d+)\.(\d+)", self.call("version"))
        return (int(found[1]), int(found[2])) if found else (0, 0)

    @property
    def compresses(self) -> bool:
        return self.version >= (0, 14)


def by_time(listed: str) -> list[dict[str, Any]]:
    return sorted(parsed(listed) or [], key=lambda snapshot: moment(snapshot["time"]))


def moment(text: str) -> datetime.datetime:
    """A time of restic's (nanoseconds) or of a person's."""
    text = re.sub(r"(\.\d{6})\d+", r"\1", text.strip()).replace("Z", "+00:00").replace(" ", "T", 1)
    try:
        parsed = datetime.datetime.fromisoformat(text)
    except ValueError:
        text = re.sub(r"\.\d+", "", text)  # Python before 3.11 takes 3 or 6 digits only
        parsed = datetime.datetime.fromisoformat(text)
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=datetime.timezone.utc)
