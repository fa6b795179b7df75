"""PostgreSQL settings from a droplet's memory and cores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Union

from ansible.errors import AnsibleFilterError
from ansible_collections.shipshape.droplet.plugins.module_utils.postgresql_replication import (
    identifier,
)
from ansible_collections.shipshape.droplet.plugins.module_utils.postgresql_replication import (
    settings as replication_settings,
)
from ansible_collections.shipshape.droplet.plugins.plugin_utils.postgresql_extensions import packages

Setting = Union[str, int, float, bool]

#: Below this 100 sessions would not fit beside everything else the droplet runs.
SMALL_MB = 960
#: Where Debian has the clusters.
DATA = "/var/lib/postgresql"
#: A kernel update moves the reported memory by some MB; that must not move a setting that asks for a restart.
STEP_MB = 64


def clamp(value: float, least: int, most: int) -> int:
    return max(least, min(most, int(value)))


def postgresql_disk(facts: Mapping[str, Any]) -> str:
    """ssd or hdd: what the kernel takes the disk of the data for.

    A guest's kernel does not know: most hypervisors let their disks pass for rotating ones, whatever is behind them.
    """
    if facts.get("virtualization_role") == "guest":
        return "ssd"
    seen = facts.get("data_disk")
    if seen is None:
        seen = _device(facts)
    return "hdd" if str(seen.get("rotational", "")) == "1" else "ssd"


def _device(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    """The disk below /var/lib as `setup` has it, where nobody has looked at it before."""
    mounts = [row for row in facts.get("mounts") or [] if row["mount"] in ("/", "/var", "/var/lib", DATA)]
    deepest = max(mounts, key=lambda row: len(row["mount"])) if mounts else {}
    source = str(deepest.get("device", "")).rpartition("/")[2]
    for name, disk in (facts.get("devices") or {}).items():
        if source == name or source in (disk.get("partitions") or {}):
            found: Mapping[str, Any] = disk
            return found
    return {}


def postgresql_tuning(memory_mb: int, cores: int = 1, disk: str = "ssd", version: str = "") -> dict[str, Setting]:
    """Memory, WAL, planner and log settings for a server that shares its droplet with an application.

    A quarter of the memory for the shared buffers and half of it as what the system may cache leaves room for the
    application, the proxy and the kernel; on 512 MB nothing exceeds the distribution's own defaults.
    """
    try:
        memory, cores = round(int(memory_mb) / STEP_MB) * STEP_MB, max(1, int(cores))
        major = int(version or 0)
    except (TypeError, ValueError) as error:
        raise AnsibleFilterError(f"postgresql_tuning: memory in MB, cores and version are numbers: {error}") from error
    if memory < 128:
        raise AnsibleFilterError(f"postgresql_tuning: {memory_mb} MB of memory is too little for PostgreSQL")
    connections = 50 if memory < SMALL_MB else 100
    shared = clamp(memory / 4, 64, 8192)
    # Each session may take work_mem several times (sorts, hashes); three of them for all sessions fit what is left.
    work = clamp((memory - shared) / (connections * 3), 4, 64)
    wal = clamp(memory / 2, 256, 4096)
    gather = clamp(cores / 2, 0, 4)
    return {
        "max_connections": connections,
        "shared_buffers": f"{shared}MB",
        "effective_cache_size": f"{memory // 2}MB",
        "work_mem": f"{work}MB",
        "maintenance_work_mem": f"{clamp(memory / 16, 32, 1024)}MB",
        # Up to three autovacuum workers at once take this each.
        "autovacuum_work_mem": f"{clamp(memory / 32, 16, 512)}MB",
        "min_wal_size": f"{clamp(wal / 4, 80, 1024)}MB",
        "max_wal_size": f"{wal}MB",
        # Whole pages are most of the log that is written after a checkpoint. lz4 makes less than a third of it; `on` is
        # pglz. lz4 came with 15, and all packages have it.
        "wal_compression": "lz4" if major >= 15 else "on",
        "checkpoint_completion_target": 0.9,
        # A commit waits so many microseconds for others that are under way, so that one write to the disk serves them
        # all: of writes a cloud's disk has few. Where fewer others than the second number are under way, none waits.
        "commit_delay": 500,
        "commit_siblings": 3,
        # From a solid-state disk a random page costs hardly more than the next one, and many come at once.
        "random_page_cost": 4 if disk == "hdd" else 1.1,
        "effective_io_concurrency": 2 if disk == "hdd" else 200,
        "max_worker_processes": max(8, cores),
        "max_parallel_workers": cores,
        "max_parallel_workers_per_gather": gather,
        "max_parallel_maintenance_workers": gather,
        "shared_preload_libraries": "pg_stat_statements",
        "log_min_duration_statement": "1s",
        "log_lock_waits": "on",
        "log_autovacuum_min_duration": "10s",
        "log_temp_files": "10MB",
        "log_line_prefix": "%m [%p] %q%u@%d ",
    }


def postgresql_literal(value: Any) -> str:
    """A value as a configuration file takes it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, (list, tuple)):
        value = ", ".join(str(part) for part in value)
    text = str(value)
    if "\n" in text:
        raise AnsibleFilterError(f"a PostgreSQL setting is one line; found {text!r}")
    # A backslash begins an escape even between quotes (guc-file.l), so it is doubled like the quote.
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def postgresql_package_reasons(databases: Iterable[Mapping[str, Any]], version: str) -> dict[str, str]:
    """Why the packages of extensions are needed, for the case that no source has one."""
    reasons: dict[str, list[str]] = {}
    for database in databases:
        for name in database.get("extensions") or []:
            for package in packages([name], version):
                reasons.setdefault(package, []).append(f"extension {name} of database {database['name']}")
    return {
        package: f"{package} is for {', '.join(whose)}. `postgresql_origin: pgdg` has more extensions; or leave it out."
        for package, whose in reasons.items()
    }


def postgresql_partitions(databases: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The tables with monthly partitions of all databases, each with its database."""
    return [
        {"ahead": 2, **table, "database": database["name"]}
        for database in databases
        for table in database.get("partitions") or []
    ]


def postgresql_replication(replication: Mapping[str, Any]) -> dict[str, str]:
    """The settings that follow from having replicas, or from being one."""
    found: dict[str, str] = replication_settings(replication)
    return found


def postgresql_senders(peers: Iterable[str]) -> dict[str, str]:
    """Under which name each of these hosts connects to the primary that it copies."""
    return {str(peer): identifier(str(peer)) for peer in peers}


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {
            "postgresql_tuning": postgresql_tuning,
            "postgresql_replication": postgresql_replication,
            "postgresql_senders": postgresql_senders,
            "postgresql_disk": postgresql_disk,
            "postgresql_partitions": postgresql_partitions,
            "postgresql_package_reasons": postgresql_package_reasons,
            "postgresql_literal": postgresql_literal,
            "postgresql_extension_packages": packages,
        }
