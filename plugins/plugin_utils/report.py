"""The words of the report at the end of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

#: Below this a certificate is pointed out: renewal begins a month before the end, so something is wrong by then.
CERTIFICATE_SOON = timedelta(days=14)
#: A daily backup that is older has missed a night.
BACKUP_LATE = timedelta(hours=26)


def span(delta: timedelta) -> str:
    """A duration as a person says it: '89 days', '27 hours', '5 minutes'; up to two of a unit in the smaller one."""
    seconds = abs(int(delta.total_seconds()))
    for size, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds // size} {name}"
    return f"{seconds} seconds"


def certificate_line(certificate: Mapping[str, Any], now: datetime) -> str:
    name = str(certificate["path"]).rsplit("/", 2)[-2]
    expires = datetime.strptime(str(certificate["expires"]), "%b %d %H:%M:%S %Y %Z").replace(tzinfo=UTC)
    left = expires - now
    when = f"until {expires:%Y-%m-%d %H:%M} UTC"
    if left < timedelta(0):
        return f"certificate  {name}: EXPIRED {span(left)} ago"
    kind = "self-signed, " if certificate.get("self_signed") else ""
    return f"certificate  {name}: {kind}{when} ({span(left)} left)"


def backup_line(status: Mapping[str, Any], configured: bool, now: datetime) -> str:
    if not configured:
        return "backup       none configured: set 'backup' in the inventory"
    last, attempt = str(status.get("last_success", "")), status.get("last", {})
    failed = attempt.get("status") == "failed"
    trouble = f"; the newest attempt FAILED: {'; '.join(map(str, attempt.get('failures', [])))}" if failed else ""
    if not last:
        return f"backup       none made yet{trouble or '; the first one runs by cron, or now by playbooks/backup.yml'}"
    made = datetime.fromisoformat(last.replace("Z", "+00:00"))
    age = now - made
    late = "; LATE, see journalctl -t shipshape-backup" if age > BACKUP_LATE and not failed else ""
    return f"backup       {made:%Y-%m-%d %H:%M} UTC ({span(age)} ago){trouble}{late}"


def replica_lines(status: Mapping[str, Any], now: datetime) -> list[str]:
    """How far each replica is behind, as the primary saw it a few minutes ago."""
    if not status:
        return ["replica      not looked at yet; that is done every five minutes"]
    seen = f"({span(now - datetime.fromisoformat(str(status['at'])))} ago)"
    return [
        f"replica      {host}: {found['bytes_behind']} bytes behind {seen}"
        if found["streams"]
        else f"REPLICA      {host}: does not follow, since {found['since']} {seen}"
        for host, found in status["replicas"].items()
    ]


def rebuild_lines(rebuild: Mapping[str, Any], now: datetime) -> list[str]:
    """What a droplet that took the place of a lost one got back, and how long all of it took, killed runs included."""
    if not rebuild:
        return []
    started = datetime.fromisoformat(str(rebuild["started"]))
    took = f"in {round((now - started).total_seconds())} s, since {started:%Y-%m-%d %H:%M:%S} UTC"
    return [
        *(f"restored     {line}" for line in rebuild.get("restored", [])),
        f"rebuilt      from {rebuild['from']}, {took}" if rebuild.get("finished") else "REBUILD      is not finished",
    ]


def lines(
    state: Mapping[str, Any], urls: Sequence[str], backup_configured: bool, now: datetime, *, replicated: bool = False
) -> list[str]:
    """What an operator wants to know of a droplet after a run; `replicated` is one that has replicas."""
    text = [f"url          {url}" for url in urls]
    text += [certificate_line(certificate, now) for certificate in state["certificates"]]
    text.append(backup_line(state["backup"], backup_configured, now))
    # By the droplet's own clock, as these were noted.
    text += replica_lines(state["replicas"], datetime.fromisoformat(state["now"])) if replicated else []
    text += rebuild_lines(state["rebuild"], datetime.fromisoformat(state["now"])) if state.get("rebuild") else []
    if state["failed_units"]:
        text.append(f"FAILED       {', '.join(state['failed_units'])}: see systemctl status on the droplet")
    if state["reboot_required"]:
        text.append("reboot       required by an upgrade")
    return text
