"""What every step of a deploy needs of the droplet: commands as the app's user, safe files, one writer at a time."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import pwd
import subprocess
import time
from typing import Any, Iterator, Mapping, Sequence

from ansible_collections.shipshape.droplet.plugins.module_utils import app_disk

#: What of the caller's environment a build may see: proxies and package indexes, set by `environment:` in a play.
INHERITED = ("PIP_", "UV_", "GIT_", "SSL_CERT_", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")
#: Nobody is there to answer a question.
NEVER_ASK = {"GIT_TERMINAL_PROMPT": "0", "GIT_SSH_COMMAND": "ssh -o BatchMode=yes"}
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class AppError(Exception):
    """A step of one app's deploy failed; the message names the app and the step."""

    def __init__(self, app: str, step: str, message: str) -> None:
        # Here, before anybody tidies up: then there is room again.
        super().__init__(f"{app}: {step}: {app_disk.in_words(app, step, message)}")


class Account:
    """The user an app runs as, or what stands in for it while it does not exist yet."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.exists = True
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            # Check mode on a bare host: whoever has the least to say asks the git server.
            self.exists = False
            entry = pwd.getpwnam("nobody")
        self.uid, self.gid, self.home = entry.pw_uid, entry.pw_gid, entry.pw_dir


def environment(account: Account) -> dict[str, str]:
    """A small environment for commands of the app's user: nothing of the operator in it."""
    passed = {
        name: value for name, value in os.environ.items() if name.startswith(INHERITED) or name.lower() in PROXIES
    }
    fixed = {"PATH": SYSTEM_PATH, "HOME": account.home, "USER": account.name, "LOGNAME": account.name}
    return {**NEVER_ASK, **passed, **fixed, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}


def as_user(account: Account, command: Sequence[str]) -> list[str]:
    """The command, run by that user for good: without a way back to more rights."""
    identity = [f"--reuid={account.uid}", f"--regid={account.gid}", "--init-groups"]
    return ["setpriv", *identity, "--no-new-privs", "--", *command]


def run(
    account: Account | None,
    command: Sequence[str],
    cwd: str = "/",
    timeout: int = 900,
    lock: int | None = None,
    extra: Mapping[str, str] | None = None,
) -> tuple[int, str]:
    """Run a command as that user (or as root) and return its exit status and all it said.

    What it finds in its environment beside the little that every command does is `extra`.

    The lock is handed on to the command: should this process be killed, the app stays locked until the command ends.
    """
    full = list(command) if account is None else as_user(account, command)
    own = {**os.environ, "LC_ALL": "C.UTF-8"} if account is None else environment(account)
    try:
        done = subprocess.run(
            full,
            cwd=cwd,
            env={**own, **(extra or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            pass_fds=() if lock is None else (lock,),
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        said = (error.stdout or b"").decode("utf-8", "replace")
        return 124, f"{said.rstrip()}\nno end after {timeout} seconds; stopped"
    except FileNotFoundError as error:
        return 127, str(error)
    return done.returncode, done.stdout.decode("utf-8", "replace").strip()


def last_lines(text: str, count: int = 20) -> str:
    """The end of a command's output, indented, for an error message."""
    lines = [line.rstrip() for line in text.strip().splitlines()][-count:]
    return "\n".join("    " + line for line in lines) if lines else "    (it said nothing)"


def write_file(path: str, text: str, mode: int, uid: int = 0, gid: int = 0) -> None:
    """Write a file so that it is there whole or not at all, also after a power cut."""
    temporary = f"{path}.new-{os.getpid()}"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(handle, "wb") as stream:
            os.fchown(handle, uid, gid)
            os.fchmod(handle, mode)
            stream.write(text.encode("utf-8"))
            stream.flush()
            os.fsync(handle)
        os.replace(temporary, path)
    except OSError:
        os.unlink(temporary)  # the disk is full
        raise


def write_record(path: str, record: dict[str, Any]) -> None:
    """Write one of our own notes: root's alone, because it tells when secrets changed."""
    write_file(path, json.dumps(record, indent=2, sort_keys=True) + "\n", 0o600)


def read_record(path: str) -> dict[str, Any] | None:
    """One of our own notes, or None when it is missing or cut short."""
    try:
        with open(path, encoding="utf-8") as stream:
            record = json.load(stream)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return record if isinstance(record, dict) else None


@contextlib.contextmanager
def locked(app: str, directory: str, step: str, patience: int = 120) -> Iterator[int]:
    """Be the only one to work on an app on this host; wait for an earlier run that is still at it, but not for ever."""
    handle = os.open(os.path.join(directory, ".lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    deadline = time.monotonic() + patience
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    raise
            if time.monotonic() > deadline:
                holder = f"see `fuser -v {os.path.join(directory, '.lock')}` on the droplet"
                raise AppError(app, step, f"another run is at work on this app ({holder}); try again when it is done")
            time.sleep(0.5)
        yield handle
    finally:
        os.close(handle)
