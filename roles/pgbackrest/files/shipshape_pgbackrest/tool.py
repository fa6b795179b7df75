"""pgBackRest with the words it lacks, and the settings that the role wrote."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import IO, Any, ContextManager, Iterable, Optional

from shipshape_pgbackrest import unattended
from shipshape_pgbackrest.unattended import DISK_FULL, Failure, scratch, too_full

STANZA = "main"
LIMIT = "pgbackrest_timeout_minutes"
DATABASES = "SELECT string_agg(datname, ', ' ORDER BY datname) FROM pg_database WHERE NOT datistemplate"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

NOT_ARCHIVED = "PostgreSQL's log does not reach the repository"
#: What pgBackRest says, and what that means to the person who has to do something about it. The first match counts.
MEANINGS = (
    # Of a write that was cut short it does not say why.
    (r"No space left|unable to write '[^']*'(?!:)", DISK_FULL),
    (r"new backup label .* is not later than",
     "the newest backup is of a time to come: this host's clock was set back, or was ahead when that one was made. Set "
     "it right: timedatectl. If it is right now, the next backup is possible once that time has come"),
    (r"certificate has expired",
     "the store's certificate has expired. Whoever runs the store has to renew it; or this host's clock is ahead: "
     "timedatectl"),
    (r"certificate is not yet valid",
     "the store's certificate is not valid yet, so this host's clock is behind. Set it: timedatectl"),
    (r"certificate", "the store's certificate is not trusted. Check it, this host's clock and CA certificates"),
    (r"cipher header invalid|CryptoError|unable to flush|FormatError",
     "the repository exists and backup_password does not open it. Give the password it was made with"),
    (r"QuotaExceeded|StorageFull|minimum free drive threshold|\b507\b",
     "the bucket is full: its quota is used up. Nothing that was stored is lost, and it can be restored. Raise the "
     "quota at the provider of the store"),
    (r"RequestTimeTooSkewed|difference between the request time",
     "this host's clock is wrong, so the store refuses what it signs. Set the clock: timedatectl"),
    (r"SignatureDoesNotMatch|InvalidAccessKeyId|Access ?Denied|\b403\b",
     "the store refuses the keys. Check access_key and secret_key of backup.s3, and what they may do with the bucket"),
    (r"AuthorizationHeaderMalformed|region .* is wrong|PermanentRedirect",
     "the bucket is in another region. Check region of backup.s3"),
    (r"\[055\]|FileMissingError",
     "there is no repository in that bucket. Check bucket of backup.s3; shipshape-pgbackrest open makes one"),
    (r"NoSuchBucket", "the bucket does not exist. pgBackRest makes none: create it at the provider"),
    (r"unable to get address|Connection refused|[Tt]imeout connecting|No route to host|Network is unreachable|"
     r"Connection timed out|\b50[234]\b|unexpected eof|timeout after .* waiting for (read|write)",
     "the store cannot be reached. Check endpoint of backup.s3 and the network"),
    (r"\[028\]|do not match the database",
     "the repository has the backups of another cluster: this one's data directory was made anew. They are worth "
     "keeping, so give this one a place of its own (pgbackrest_path). Does this droplet take the place of a lost one? "
     "Then begin with a bare one, and site.yml -e restore_from=latest"),
    (r"\[050\]|unable to acquire lock", "another pgBackRest is at work on this host"),
    (r"\[082\]|was not archived before",
     f"{NOT_ARCHIVED}. Why: /var/log/postgresql/ and /var/log/pgbackrest/"),
    (r"\[087\]|archive_mode must be enabled", "PostgreSQL does not archive (archive_mode). Run site.yml"),
    (r"\[056\]|unable to find primary cluster|could not connect to server|connection to server",
     "PostgreSQL does not answer"),
)  # fmt: skip


class DiskFull(Failure):
    """A disk of this host has no room, or as little as is left to others."""


def meaning(output: str, code: int) -> str:
    """pgBackRest's output in words of ours, followed by its own first error."""
    lines = [re.sub(r"^\d\S+ \S+ +P\d+ +", "", line).strip() for line in output.splitlines()]
    # What it was called with says nothing of what went wrong, and has words in it that seem to.
    lines = [line for line in lines if line and not line.startswith(("INFO:", "HINT:"))]
    output = "\n".join(lines)
    own = " ".join(lines) or f"pgBackRest ended with {code}"
    own = re.sub(r"(FormatError[^:]*): .*", r"\1", own)[:400]  # then comes what a wrong password makes of a file
    for pattern, words in MEANINGS:
        if re.search(pattern, output):
            return f"{words} ({own})"
    return own


def said(moment: datetime.datetime) -> str:
    return moment.astimezone(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def from_epoch(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)


class Settings:
    """What the role wrote: config.json for anyone, the webhook and pgBackRest's own file for root."""

    program = "shipshape-pgbackrest"

    def __init__(self, directory: Path) -> None:
        try:
            values: dict[str, Any] = json.loads((directory / "config.json").read_text(encoding="utf-8"))
            self.webhook = (directory / "webhook").read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise Failure(f"the configuration cannot be read: {error}") from error
        self.host: str = values["host"]
        self.repository: str = values["repository"]
        self.pgbackrest = Path(values["pgbackrest_configuration"])
        self.version: str = values["postgresql_version"]
        self.port: int = values["postgresql_port"]
        self.recovery_days: int = values["recovery_days"]
        self.archive_timeout: int = values["archive_timeout_seconds"]
        self.behind_minutes: int = values["behind_minutes"]
        self.timeout_minutes: int = values["timeout_minutes"]
        self.jitter_minutes: int = values["jitter_minutes"]
        self.mail: str = values["mail"]
        self.state = Path(values["state_directory"])
        self.lock = Path(values["lock_file"])
        self.clusters = Path(values.get("clusters_directory", "/var/lib/postgresql")) / self.version
        self.configurations = Path(values.get("configurations_directory", "/etc/postgresql")) / self.version
        self.logs = Path(values.get("logs_directory", "/var/log/postgresql"))

    @property
    def directory(self) -> Optional[Path]:
        """The repository, where that is on a disk of this host."""
        return Path(self.repository) if self.repository.startswith("/") else None

    @property
    def data(self) -> Path:
        return Path(self.clusters, "main")

    def log(self, cluster: str = "main") -> Path:
        return self.logs / f"postgresql-{self.version}-{cluster}.log"

    def secrets(self) -> list[str]:
        try:
            text = self.pgbackrest.read_text(encoding="utf-8")
        except OSError:
            text = ""
        found = re.findall(r"^repo1-(?:cipher-pass|s3-key|s3-key-secret)=(.*)$", text, re.MULTILINE)
        return [secret for secret in [*found, self.webhook] if len(secret) >= 4]

    def scrub(self, text: str) -> str:
        """No secret leaves in a message, whatever a program put into its own."""
        for secret in self.secrets():
            text = text.replace(secret, "(secret)")
        return text

    def fingerprint(self, system: str) -> str:
        """Of the repository, what opens it, and the cluster it is for."""
        text = self.pgbackrest.read_text(encoding="utf-8") + system
        # Slow on purpose: a password must not be found from what is kept.
        return hashlib.pbkdf2_hmac("sha256", text.encode(), b"shipshape-pgbackrest", 100_000).hex()


def lock(settings: Settings, what: str) -> ContextManager[None]:
    """One of each at a time: a backup and a restore do not disturb each other."""
    return unattended.lock(settings.lock.with_suffix(f".{what}"), what)


def text_of(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read().decode("utf-8", "replace")


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask it to end, so that it leaves its locks; kill what does not listen."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def as_postgres(*command: str, stdin: str = "", disks: Iterable[Path] = ()) -> tuple[int, str, str]:
    """(status, output, errors). A run that is told to stop does not leave it behind.

    It is ended once one of the disks that it writes to has only left what is left to others.
    """
    account: dict[str, Any] = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
    environment = {"PATH": os.environ.get("PATH", PATH), "LC_ALL": "C", "PGCONNECT_TIMEOUT": "10"}
    with scratch() as given, scratch() as out, scratch() as err:
        given.write(stdin.encode())
        given.seek(0)
        try:
            process = subprocess.Popen(
                command, env=environment, cwd="/", stdin=given, stdout=out, stderr=err, **account
            )
        except (FileNotFoundError, LookupError) as error:
            raise Failure(f"{command[0]} cannot be run: it is not installed on this host") from error
        full = ""
        try:
            while disks and process.poll() is None and not full:
                full = next(filter(None, map(too_full, disks)), "")
                time.sleep(0.05)
            if not full:
                code = process.wait()
        finally:
            end(process)
        if full:
            raise DiskFull(full)
        return code, text_of(out), text_of(err)


def conninfo(database: str) -> str:
    """A name as a connection string, because psql takes a name with = in it for one."""
    quoted = database.replace("\\", "\\\\").replace("'", "\\'")
    return f"dbname='{quoted}'"


def psql(statement: str, port: int, database: str = "postgres") -> str:
    command = ["psql", "-XqAtw", "-v", "ON_ERROR_STOP=1", "-p", str(port), "-d", conninfo(database), "-f", "-"]
    code, out, err = as_postgres(*command, stdin=statement)
    if code != 0:
        raise Failure(f"PostgreSQL on port {port} says: {err.strip()}")
    return out.strip()


def answers(port: int) -> bool:
    try:
        return psql("SELECT 1", port) == "1"
    except Failure:
        return False


def system_identifier(settings: Settings) -> str:
    return psql("SELECT system_identifier FROM pg_control_system()", settings.port)


#: Seconds. What makes or changes the stanza wants its locks, and the process that stores the log has one now and then.
PATIENCE = 60
LOCKED = 50


def pgbackrest(command: str, *options: str, nice: bool = False, disks: Iterable[Path] = ()) -> str:
    deadline = time.monotonic() + (PATIENCE if command.startswith("stanza-") else 0)
    while True:
        code, out, err = _pgbackrest(command, *options, nice=nice, disks=disks)
        if code == 0:
            return out
        if code != LOCKED or time.monotonic() >= deadline:
            words = meaning(out + err, code)
            raise (DiskFull if words.startswith(DISK_FULL) else Failure)(words)
        time.sleep(0.5)


def _pgbackrest(command: str, *options: str, nice: bool, disks: Iterable[Path]) -> tuple[int, str, str]:
    # What it says goes to standard output, at whichever level; `info` alone prints something else.
    level = "warn" if command in ("info", "check") else "info"
    gently = ["nice", "-n", "19", "ionice", "-c", "3"] if nice else []
    return as_postgres(
        *gently,
        "pgbackrest",
        f"--stanza={STANZA}",
        f"--log-level-console={level}",
        "--log-level-stderr=off",
        *options,
        command,
        disks=disks,
    )


def info() -> dict[str, Any]:
    """Of the stanza: its backups, oldest first, and what the archive has."""
    out = pgbackrest("info", "--output=json")
    begin = out.find("[")
    try:
        found: list[dict[str, Any]] = json.loads(out[begin:]) if begin >= 0 else []
    except ValueError as error:
        raise Failure(f"pgBackRest answered in another form than expected: {out.strip()[:200]}") from error
    stanza = found[0] if found else {}
    status = stanza.get("status", {})
    if status.get("code") not in (0, 1, 2, None):  # no such stanza, no backup yet: not an error here
        raise Failure(meaning(str(status.get("message")) + str(stanza.get("repo", "")), int(status["code"])))
    stanza["backup"] = [backup for backup in stanza.get("backup", []) if not backup.get("error")]
    versions = {database["id"]: database["version"] for database in stanza.get("db", [])}
    for backup in stanza["backup"]:
        backup["version"] = versions.get(backup.get("database", {}).get("id"))
    return stanza


def stop_time(backup: dict[str, Any]) -> datetime.datetime:
    return from_epoch(backup["timestamp"]["stop"])


def newest(stanza: dict[str, Any]) -> Optional[dict[str, Any]]:
    return stanza["backup"][-1] if stanza["backup"] else None
