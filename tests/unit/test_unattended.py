"""What the programs share that run while nobody looks: who waits for whom, how long, and what is said of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ansible_collections.shipshape.droplet.plugins.module_utils import unattended

Capture = pytest.CaptureFixture[str]
ROOT = Path(__file__).parents[2]
HOLD = """
import sys, time
from pathlib import Path
from ansible_collections.shipshape.droplet.plugins.module_utils import unattended
with unattended.lock(Path(sys.argv[1]), sys.argv[2]):
    print("has it", flush=True)
    time.sleep(float(sys.argv[3]))
"""


@contextmanager
def held(path: Path, what: str, seconds: float) -> Iterator[int]:
    """By another process, for so long, or until this is over."""
    command = [sys.executable, "-c", HOLD, str(path), what, str(seconds)]
    found = {**os.environ, "PYTHONPATH": str(ROOT / "collections")}
    holder = subprocess.Popen(command, env=found, stdout=subprocess.PIPE)
    try:
        assert holder.stdout and holder.stdout.readline()
        yield holder.pid
    finally:
        holder.kill()
        holder.communicate()


def test_one_that_does_something_else_is_waited_for_and_that_is_said(tmp_path: Path, capsys: Capture) -> None:
    with held(tmp_path / "lock", "drill", 1) as pid:
        with unattended.lock(tmp_path / "lock", "backup", patience=30):
            assert (tmp_path / "lock").read_text().startswith(f"backup, process {os.getpid()}, since 20")
    assert f"waiting until it is done: drill, process {pid}, since 20" in capsys.readouterr().err


def test_one_that_does_the_same_is_not_waited_for(tmp_path: Path) -> None:
    begun = time.monotonic()
    with held(tmp_path / "lock", "backup", 60) as pid:
        with pytest.raises(unattended.Busy, match=f"another backup is running: process {pid}, since 20") as refused:
            with unattended.lock(tmp_path / "lock", "backup", patience=30):
                pass
    assert not isinstance(refused.value, unattended.Waited) and time.monotonic() - begun < 20


def test_who_has_no_patience_hears_at_once_what_to_do(tmp_path: Path) -> None:
    with held(tmp_path / "lock", "drill", 60) as pid:
        words = f"a drill is running: process {pid}, .* can be run when that is done, or kill {pid} has ended it"
        with pytest.raises(unattended.Busy, match=words):
            with unattended.lock(tmp_path / "lock", "backup"):
                pass


def test_patience_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unattended, "POLL", 0.01)
    with held(tmp_path / "lock", "drill", 60):
        with pytest.raises(unattended.Waited, match=r"a drill is running: .* This backup has waited 0 minutes"):
            with unattended.lock(tmp_path / "lock", "backup", patience=0.1):
                pass


def test_a_holder_that_is_killed_holds_nothing(tmp_path: Path) -> None:
    with held(tmp_path / "lock", "backup", 60) as pid:
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        with unattended.lock(tmp_path / "lock", "backup"):
            pass


def test_a_limit_ends_what_hangs_and_nothing_after_it() -> None:
    with pytest.raises(
        unattended.Stopped, match=r"the drill was not done after 0.001 minutes and was stopped \(hours\)"
    ):
        with unattended.limit(0.001, "drill", "hours"):
            time.sleep(10)
    with unattended.limit(0.001, "drill", "hours"):
        pass
    time.sleep(0.1)
