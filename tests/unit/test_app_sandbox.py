"""A migration runs in the sandbox of the service it belongs to."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.shipshape.droplet.plugins.module_utils.app_service import SANDBOX

UNIT = Path(__file__).parents[2] / "roles" / "app" / "templates" / "app.service.j2"
#: What each says in its own way, or has no need of.
OTHERWISE = {
    "SyslogIdentifier", "Type", "User", "Group", "WorkingDirectory", "Environment", "EnvironmentFile", "ExecStart",
    "Restart", "RestartSec", "TimeoutStopSec", "KillMode", "LimitNOFILE", "MemoryMax", "CPUQuota", "StateDirectory",
}  # fmt: skip


def test_a_migration_is_fenced_in_as_its_service_is() -> None:
    service = UNIT.read_text(encoding="utf-8").partition("[Service]")[2].partition("[Install]")[0]
    settings = [line for line in service.splitlines() if "=" in line and not line.startswith(("#", "{%"))]
    assert [line for line in settings if line.partition("=")[0] not in OTHERWISE] == list(SANDBOX)
