"""First runs that are killed, and droplets that restart, in the middle of it: nothing is lost by either."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from difflib import unified_diff
from pathlib import Path

import pytest

from tests.lab import droplet, settings
from tests.site import malar_market, system
from tests.site.system import PROJECT, System, descendants, environment

KILLS = 20 if settings.EVERYTHING else 3
#: The stages' own playbooks, in the order of site.yml. That of the backup makes one; a tag sets it up.
STAGES = (
    *([f"playbooks/{stage}.yml"] for stage in ("hardening", "docker", "database", "proxy", "deploy")),
    ["site.yml", "--tags", "packages,backup"],
)
#: Seconds of a run before it is killed: enough to get somewhere, too few to get through a step that takes long.
LIFE = (1.5, 12.0)
HOSTS = {"malar1": "10.77.0.47"}
DOMAINS = malar_market.domains("cut.test")

PROGRAM = Path(__file__).with_name("what_is_there.py")


def look(host: System, *parts: str) -> list[str]:
    return host.ssh(
        f"python3 - {' '.join(parts)} <<'PROGRAM'\n{PROGRAM.read_text(encoding='utf-8')}\nPROGRAM"
    ).splitlines()


def in_force(host: System) -> set[str]:
    """Units that are up, and every firewall rule."""
    lines = look(host, "units", "firewall")
    return {line for line in lines if not line.startswith("unit") or line.endswith(" active")}


def run_for(host: System, seconds: float) -> bool:
    """Start site.yml and kill controller and workers after so long; whether it was still running."""
    process = subprocess.Popen(
        host.command("site.yml"), cwd=PROJECT, env=environment(), stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        for child in descendants(process.pid):
            # One of them may just have come to its end by itself.
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        process.wait(timeout=30)
        return True
    return False


@pytest.fixture
def one(tmp_path: Path) -> Iterator[System]:
    inventory = malar_market.at("cut.test", tmp_path)
    main = inventory / "group_vars" / "all" / "main.yml"
    text = main.read_text(encoding="utf-8")
    # The second droplet of this name would rightly refuse to write its log to where that of the first one is.
    assert ", recovery_days: 7" in text
    main.write_text(text.replace(", recovery_days: 7", ""), encoding="utf-8")
    yield System(inventory, HOSTS, tmp_path, system.bucket("shipshape-cut"), DOMAINS)
    system.stop("cut", HOSTS)


def test_kills_during_a_first_run_leave_no_trace(one: System) -> None:
    system.start("cut", HOSTS, DOMAINS)
    whole = one.play("site.yml")
    assert whole.code == 0, whole.tail
    wanted = look(one)

    seed = time.time_ns()
    moments = random.Random(seed)
    kills: list[float] = []
    while len(kills) < KILLS:
        system.start("cut", HOSTS, DOMAINS)
        while len(kills) < KILLS:
            moment = moments.uniform(*LIFE)
            if not run_for(one, moment):
                break
            kills.append(moment)
        told = f"seed {seed}, killed after {', '.join(f'{moment:.1f}' for moment in kills)} s"
        run = one.play("site.yml")
        assert run.code == 0, f"{told}\n{run.tail}"
        difference = [line for line in unified_diff(wanted, look(one), "whole", "killed", n=0, lineterm="")]
        assert not difference, f"{told}\n" + "\n".join(difference)
        run = one.play("site.yml")
        assert run.code == 0 and run.count("changed") == 0, f"{told}\n{run.tail}"


@pytest.mark.skipif(not settings.EVERYTHING, reason="each role's scenario restarts its droplet; make test-all")
def test_a_restart_right_after_any_stage_brings_back_its_services_and_rules(one: System) -> None:
    system.start("cut", HOSTS, DOMAINS)
    for stage in STAGES:
        run = one.play(*stage)
        assert run.code == 0, f"{stage}\n{run.tail}"
        before = in_force(one)
        droplet.reboot("shipshape-cut-malar1")
        assert not (lost := before - in_force(one)), f"after {stage} and a restart: {sorted(lost)}"
    assert one.fetch(f"https://{DOMAINS[0]}/health").status == 200
    run = one.play("site.yml")
    assert run.code == 0, run.tail
    assert run.count("changed") == 0, run.tail
