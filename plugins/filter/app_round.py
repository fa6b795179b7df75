"""Filters that make one deploy of what several hosts have planned: which run it is, who takes part, how it went."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError

Plan = Mapping[str, Any]


def _start_of(process: int) -> str:
    """When a process began, in the kernel's count: with its number it names one process for good."""
    return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]


def _playbooks() -> list[str] | None:
    """The runs of Ansible on this controller; None where that cannot be seen."""
    if not os.path.isdir("/proc/self"):
        return None
    found = []
    for entry in os.listdir("/proc"):
        try:
            if entry.isdigit() and b"ansible" in Path(f"/proc/{entry}/cmdline").read_bytes():
                found.append(f"{entry}:{_start_of(int(entry))}")
        except OSError:
            continue  # it has ended meanwhile
    return found


def app_holder(why: str, who: str = "") -> dict[str, Any]:
    """This run, for the lock of an app: the playbook's own process, not the worker that asks."""
    parent = multiprocessing.parent_process()
    process = parent.pid if parent and parent.pid else os.getpid()
    alive = _playbooks()
    run = f"{process}:{_start_of(process)}" if alive is not None else str(process)
    return {
        "run": run,
        "controller": socket.gethostname(),
        "who": who,
        "why": why,
        "alive": alive if alive is None else sorted({*alive, run}),
    }


def _other(colour: str) -> str:
    return "green" if colour == "blue" else "blue"


def app_round(plans: Mapping[str, Plan], host: str, hosts: Iterable[str] = ()) -> dict[str, Any]:
    """What `host` has to do, given the plans of all hosts of the play, by host.

    A proxy leads to one colour on all hosts of an app. So they act together: where one has something to do, the others
    start the release they have beside itself, and all switch at once.
    """
    # A host that runs none of the apps has planned nothing.
    mine = plans.get(host, {}).get("apps", {})
    rows: list[dict[str, Any]] = []
    settle: list[dict[str, str]] = []
    for name, facts in mine.items():
        if not facts["switched"]:
            if facts["action"] != "none":
                rows.append({**facts, "colour": _other(facts["colour"]) if facts["colour"] else "blue", "leads": False})
            continue
        together = {other: plan["apps"][name] for other, plan in plans.items() if name in plan.get("apps", {})}
        live = next((other["colour"] for other in together.values() if other["colour"]), "")
        leads = next(iter(together)) == host
        if live and leads:
            settle.append({"name": name, "to": live})
        if all(other["action"] == "none" for other in together.values()):
            continue
        missing = [other for other in hosts if other not in plans]
        if missing:
            raise AnsibleFilterError(
                f"{name}: all its hosts switch to another release at once, and this run leaves out {', '.join(missing)}"
                "; run without --limit, or see why they cannot be reached"
            )
        action = "activate" if facts["action"] == "none" else facts["action"]
        target = _other(live) if live else "blue"
        rows.append({**facts, "action": action, "colour": target, "back": live, "leads": leads})
    return {"rows": rows, "settle": settle, "build": [row for row in rows if row["action"] == "deploy"]}


def app_switches(
    rows: Iterable[Mapping[str, Any]], specs: Mapping[str, Mapping[str, Any]], seconds: int
) -> list[dict[str, Any]]:
    """What this host tells the proxies, for the module app_switch."""
    return [
        {
            "name": row["name"],
            "to": row["colour"],
            "back": row["back"],
            "domain": specs[row["name"]]["domain"],
            "health": specs[row["name"]]["domain_health"],
            # There is nowhere to go back to from a way back, nor from a first release.
            "watch": _seconds(specs[row["name"]], seconds) if row["back"] and not row["given_up"] else 0,
        }
        for row in rows
        if row["leads"]
    ]


def _seconds(spec: Mapping[str, Any], seconds: int) -> int:
    return int(spec["watch_seconds"] if spec["watch_seconds"] >= 0 else seconds)


def app_failures(switched: Iterable[Any]) -> dict[str, str]:
    """What any proxy has seen of an app that fared badly, from the results of all hosts' tasks."""
    failures: dict[str, str] = {}
    for task in switched:
        for result in (task or {}).get("results") or []:
            failures.update(result.get("failures") or {})
    return failures


def app_returns(
    switches: Iterable[Mapping[str, Any]], failures: Mapping[str, str] | None = None
) -> list[dict[str, str]]:
    """Where the proxies have to be led back to: for the apps that failed, or for all of them."""
    return [
        {"name": s["name"], "to": s["back"]}
        for s in switches
        if s["back"] and (failures is None or s["name"] in failures)
    ]


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "app_holder": app_holder,
            "app_round": app_round,
            "app_switches": app_switches,
            "app_failures": app_failures,
            "app_returns": app_returns,
        }
