"""Look at what the last unattended upgrade has left, and say what an operator has to know."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Tuple

from shipshape_updates.webhook import NotTold, points, tell

#: With systemd's own word for how the service ended.
RESULT = os.environ.get("SERVICE_RESULT", "success")
#: 2026-11-25 06:12:13,456 ERROR …; the words that follow may be in any language, the level is not.
FAILED = re.compile(r"^\d{4}-\d\d-\d\d [\d:,]+ (?:ERROR|CRITICAL) (.*)$")
DAY = 24 * 3600
AT_MOST = 10


class Host:
    """Where things are. Tests have them elsewhere."""

    def __init__(self, root: str = "/") -> None:
        self.log = Path(root, "var/log/unattended-upgrades/unattended-upgrades.log")
        self.stamp = Path(root, "var/lib/apt/periodic/upgrade-stamp")
        self.reboot = Path(root, "run/reboot-required")
        self.state = Path(root, "var/lib/shipshape/updates.json")
        self.configuration = Path(root, "etc/shipshape/updates.json")


def read(path: Path) -> Dict[str, Any]:
    try:
        found: Dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found
    except (OSError, ValueError):
        return {}


def news(log: Path, known: Dict[str, Any]) -> Tuple[List[str], Dict[str, Any]]:
    """(lines since the last look, how far that was). Another file, or a shorter one, is a log that was rotated."""
    try:
        with log.open("rb") as stream:
            info = os.fstat(stream.fileno())
            same = known.get("inode") == info.st_ino and known.get("size", 0) <= info.st_size
            stream.seek(known["size"] if same else 0)
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return [], known
    return text.splitlines(), {"inode": info.st_ino, "size": info.st_size}


def failures(host: Host, lines: List[str], first: bool, result: str) -> List[str]:
    if first:
        # Nobody has looked before: what is older than a day is history.
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time.time() - DAY))
        lines = [line for line in lines if line[:19] >= since]
    found = [match[1] for match in map(FAILED.match, lines) if match]
    if result != "success":
        found.append(f"apt-daily-upgrade.service ended with {result}; see: journalctl -u apt-daily-upgrade")
    # apt gives it a new date when it went well.
    age = time.time() - host.stamp.stat().st_mtime if host.stamp.exists() else None
    if not found and (age is None or age > DAY + 3600):
        found.append("unattended-upgrade did not come to its end; see: journalctl -u apt-daily-upgrade")
    found = list(dict.fromkeys(found))
    return found[:AT_MOST] + ([f"… and {len(found) - AT_MOST} more"] if len(found) > AT_MOST else [])


def reboot(host: Host, reboot_at: str) -> List[str]:
    """What asks for a reboot, and who makes it."""
    if not host.reboot.exists():
        return []
    try:
        packages = sorted(set(host.reboot.with_name("reboot-required.pkgs").read_text(encoding="utf-8").split()))
    except OSError:
        packages = []
    who = f"it does so by itself at {reboot_at}" if reboot_at else "run playbooks/maintenance/upgrade.yml"
    return [f"a reboot is due{' for ' + ', '.join(packages) if packages else ''}: {who}"]


def main(host: Host, result: str) -> int:
    configuration, known = read(host.configuration), read(host.state)
    lines, position = news(host.log, known)
    failed = failures(host, lines, not known, result)
    due = reboot(host, configuration.get("reboot_at", ""))
    # Once is enough for a reboot; a failure of every day is said every day.
    fresh = due if due != known.get("said") else []
    name = configuration.get("host", os.uname().nodename)
    try:
        if failed:
            tell(configuration["webhook"], points(f"Updates of {name} failed:", failed + fresh))
        elif fresh:
            tell(configuration["webhook"], points(f"Updates of {name} are installed:", fresh))
    except NotTold as error:
        # What was not heard is said again next time.
        print(f"shipshape-updates: the webhook was not told: {error}", file=sys.stderr)
        return 1
    host.state.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    temporary = host.state.with_name(host.state.name + ".new")
    temporary.write_text(json.dumps({**position, "said": due}), encoding="utf-8")
    temporary.replace(host.state)
    return 0


if __name__ == "__main__":
    sys.exit(main(Host(), RESULT))
