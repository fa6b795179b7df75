"""A major upgrade of the local PostgreSQL cluster, step by step, so that a run killed anywhere can go on or go back.

A note on the host says what has been reached. Until it says `switched`, the old cluster is the one with the data,
nobody but us has seen the new one, and whatever goes wrong ends with the old one serving again. What runs beside the
clusters' own services (pg_upgrade, and the servers that it and we start for nobody else) is in units of the upgrade's
own, which a later run can end as a whole.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import shutil
import subprocess
import time
from typing import Any, Callable, Dict, List, Optional

from ansible_collections.shipshape.droplet.plugins.module_utils import postgresql_inventory as inventory
from ansible_collections.shipshape.droplet.plugins.module_utils import postgresql_standby as standby
from ansible_collections.shipshape.droplet.plugins.module_utils import postgresql_upgrade_host as host
from ansible_collections.shipshape.droplet.plugins.module_utils import postgresql_upgrade_plan as plan
from ansible_collections.shipshape.droplet.plugins.module_utils import secret_file
from ansible_collections.shipshape.droplet.plugins.module_utils.postgresql_server import (
    SOCKET_DIRECTORY,
    Cluster,
    ServerError,
    clusters_in_use,
    live_versions,
    run_as_postgres,
)
from ansible_collections.shipshape.droplet.plugins.module_utils.postgresql_upgrade_host import Failed, systemctl

NOTE = "/var/lib/shipshape/postgresql/upgrade.json"
LOGS = "/var/log/postgresql"
SERVER = """
SELECT json_build_object(
  'version', current_setting('server_version'),
  'data', current_setting('data_directory'),
  'checksums', current_setting('data_checksums') = 'on',
  'segment_mb', (SELECT setting::bigint / 1048576 FROM pg_settings WHERE name = 'wal_segment_size'),
  'recovery', pg_is_in_recovery(),
  'superuser', (SELECT rolname FROM pg_roles WHERE oid = 10),
  'prepared', (SELECT coalesce(json_agg(gid), '[]') FROM pg_prepared_xacts),
  'slots', (SELECT coalesce(json_agg(json_build_object('name', slot_name, 'type', slot_type, 'active', active)), '[]')
    FROM pg_replication_slots WHERE NOT temporary),
  'replicas', (SELECT coalesce(json_agg(format('%s (%s)', application_name,
      coalesce(host(client_addr), 'socket'))), '[]') FROM pg_stat_replication),
  'tablespaces', (SELECT coalesce(json_agg(spcname), '[]') FROM pg_tablespace
    WHERE spcname NOT IN ('pg_default', 'pg_global')),
  'altered', (SELECT coalesce(json_agg(DISTINCT name), '[]') FROM pg_file_settings
    WHERE sourcefile LIKE '%/postgresql.auto.conf'),
  'databases', (SELECT json_agg(datname ORDER BY datname) FROM pg_database WHERE datallowconn),
  'locale', json_build_object('lc_messages', current_setting('lc_messages'),
    'lc_monetary', current_setting('lc_monetary'), 'lc_numeric', current_setting('lc_numeric'),
    'lc_time', current_setting('lc_time')),
  'template', (SELECT json_build_object('encoding', pg_encoding_to_char(encoding), 'collate', datcollate,
    'ctype', datctype PROVIDER) FROM pg_database WHERE datname = 'template0'))
"""
WRITTEN = """
SELECT coalesce(json_object_agg(format('%I.%I', schemaname, relname), n_tup_ins + n_tup_upd + n_tup_del), '{}')
FROM pg_stat_user_tables WHERE n_tup_ins + n_tup_upd + n_tup_del > 0
"""
OUTDATED_EXTENSIONS = """
SELECT coalesce(json_agg(json_build_array(format('%I', name), installed_version, default_version) ORDER BY name), '[]')
FROM pg_available_extensions WHERE installed_version <> default_version
"""
# A collation whose library sorts otherwise than when the indexes were made; from 15 on, a database's own, too.
COLLATIONS = """
SELECT coalesce(json_agg(format('collation %s: made with %s, now %s', c.oid::regcollation, collversion,
  pg_collation_actual_version(c.oid))), '[]') FROM pg_collation c
WHERE collversion <> pg_collation_actual_version(c.oid)
"""
DATABASE_COLLATIONS = """
SELECT coalesce(json_agg(format('database %s: made with %s, now %s', datname, datcollversion,
  pg_database_collation_actual_version(oid))), '[]') FROM pg_database
WHERE datcollversion <> pg_database_collation_actual_version(oid)
"""


class Upgrade:
    """From one cluster `main` to the one of another version."""

    def __init__(
        self,
        wanted: str,
        link: bool = False,
        backup_hours: float = 26,
        backups: Optional[List[str]] = None,
        pooler_port: int = 0,
        replication: Optional[Dict[str, Any]] = None,
        timeout: int = 60,
    ) -> None:
        self.wanted = wanted
        self.link = link
        self.backup_hours = backup_hours
        self.backups = backups or []
        self.pooler_port = pooler_port
        self.replication = replication or {}
        self.timeout = timeout
        self.note = read_note()
        self.old_version = self.note.get("from", "")
        self.found: Dict[str, Any] = {}

    # -- the note ------------------------------------------------------------------------------------------------------

    def write(self, **values: Any) -> None:
        self.note = {**self.note, **values}
        secret_file.write(NOTE, json.dumps(self.note))

    def forget(self) -> None:
        self.note = {}
        with contextlib.suppress(FileNotFoundError):
            os.remove(NOTE)

    def decide(self) -> str:
        step: str
        step, self.old_version = plan.decide(self.note, self.wanted, live_versions())
        return step

    @property
    def old(self) -> Cluster:
        return Cluster(self.old_version)

    @property
    def new(self) -> Cluster:
        return Cluster(self.wanted)

    # -- what is asked before anything changes -------------------------------------------------------------------------

    def look(self) -> Dict[str, Any]:
        """What the old cluster, which serves, and the host say."""
        old, new = self.old, self.new
        found: Dict[str, Any] = old.query(SERVER.replace("PROVIDER", provider_columns(int(old.version))))
        found["extensions"] = {name: old.query(inventory.EXTENSIONS, name) for name in found["databases"]}
        installed = os.path.exists(f"{new.binaries}/pg_upgrade")
        controls = glob.glob(f"/usr/share/postgresql/{new.version}/extension/*.control")
        found["available"] = [os.path.basename(path)[: -len(".control")] for path in controls] if installed else None
        found["bytes"] = host.size_of(found["data"])
        found["mode"] = "link" if self.link else "clone" if host.clones(os.path.dirname(found["data"])) else "copy"
        disk = os.statvfs("/var/lib/postgresql")
        found["free"] = disk.f_bavail * disk.f_frsize
        # What an earlier try has left is thrown away first.
        found["free"] += host.size_of(self.data_of(new)) if self.note.get("to") == new.version else 0
        found["beside"] = [name for name in clusters_in_use() if not name.endswith("/main")]
        found["backups"] = {path: host.hours_since(path) for path in self.backups}
        return found

    @staticmethod
    def data_of(cluster: Cluster) -> str:
        """Where pg_createcluster puts it; an old cluster says itself where it is."""
        return f"/var/lib/postgresql/{cluster.version}/{cluster.name}"

    def check(self) -> List[str]:
        """Refuse with all that stands in the way; returns what is worth knowing besides. Changes nothing."""
        if not os.path.isdir("/run/systemd/system"):
            raise plan.Refused("this host is not run by systemd, which keeps the servers of the upgrade together")
        plan.require_no_replicas(self.replication, self.old.version)
        try:
            self.found = self.look()
        except ServerError as error:
            raise plan.Refused(
                f"cluster {self.old.version}/main, which holds the data, does not answer: {error}"
            ) from None
        lines = plan.obstacles(self.found, self.wanted, self.backup_hours)
        if lines:
            raise plan.Refused("this has to be settled first:\n" + "\n".join(f"  - {line}" for line in lines))
        worth_knowing: List[str] = plan.remarks(self.found, self.wanted)
        return worth_knowing

    # -- the new cluster, beside ---------------------------------------------------------------------------------------

    def prepare(self, configure: Callable[[], None]) -> None:
        """An empty cluster of the new version, as it is declared, and what pg_upgrade thinks of the two."""
        old, new = self.old, self.new
        if not os.path.exists(f"{new.binaries}/pg_upgrade"):
            raise Failed(f"PostgreSQL {new.version} is not installed here: {new.binaries}/pg_upgrade is missing")
        self.drop_new()
        self.note = {"from": old.version, "to": new.version}
        self.write(phase=plan.PREPARED, mode=self.found["mode"])
        host.run(
            "pg_createcluster", "--user", "postgres", "--start-conf", "disabled",
            *plan.locale_options(self.found["template"], self.found["locale"]), new.version, new.name,
            "--", *plan.initdb_options(self.found, new.version),
        )  # fmt: skip
        configure()
        new.check_configuration()
        self.pg_upgrade("--check")

    def drop_new(self) -> None:
        """What an earlier try has made, whole or not. Only ever called while the old cluster has the data."""
        if self.note.get("to") != self.wanted or self.note["phase"] == plan.DONE:
            return
        host.end_units()
        systemctl("stop", self.new.unit, check=False)
        for path in (self.data_of(self.new), self.new.configuration):
            shutil.rmtree(path, ignore_errors=True)
        systemctl("daemon-reload")

    def logs(self) -> str:
        return f"{LOGS}/shipshape-upgrade-{self.note['from']}-{self.note['to']}"

    def pg_upgrade(self, *options: str) -> None:
        old, new = Cluster(self.note["from"]), Cluster(self.note["to"])
        host.folder_for_postgres(self.logs())
        host.folder_for_postgres(host.SOCKETS)
        mode = {"link": ["--link"], "clone": ["--clone"], "copy": []}[self.note["mode"]]
        command = [
            f"{new.binaries}/pg_upgrade", "-b", old.binaries, "-B", new.binaries, "-d", old.configuration,
            "-D", new.configuration, "-p", str(old.port), "-P", str(new.port + 1), "-s", host.SOCKETS,
            "-j", str(os.cpu_count() or 1), *mode, *options,
            # Until the repository is told of it, it has nothing to say to it.
            "-O", "-c archive_mode=off",
        ]  # fmt: skip
        try:
            host.in_unit(command, self.logs())
        except Failed as failure:
            raise Failed(f"pg_upgrade {' '.join(options)}: {failure}\n{self.keep_reports()}".strip()) from None

    def keep_reports(self) -> str:
        """The lists that pg_upgrade has written of what it does not like; they are to survive the new cluster."""
        texts = []
        written = glob.glob(f"{self.data_of(self.new)}/pg_upgrade_output.d/**/*", recursive=True)
        for path in sorted(filter(os.path.isfile, written)):
            copy = os.path.join(self.logs(), os.path.basename(path))
            if not os.path.exists(copy):
                shutil.copy(path, copy)
        for path in sorted(glob.glob(f"{self.logs()}/*.txt")):
            with open(path, encoding="utf-8", errors="replace") as handle:
                texts.append(f"{os.path.basename(path)}:\n" + "".join(handle.readlines()[:20]).strip())
        return "\n".join([*texts, f"Its logs are in {self.logs()}"])

    # -- the switch ----------------------------------------------------------------------------------------------------

    def switch(self) -> None:
        """From the moment when nobody can write any more to the one when the new server answers."""
        old, new = Cluster(self.note["from"]), Cluster(self.note["to"])
        old.execute("CHECKPOINT")  # so that the shutdown has little to write
        started = time.time()
        when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(started))
        said = {"when": when, "from": self.found["version"], "bytes": self.found["bytes"]}
        self.write(phase=plan.STOPPED, stopped=started, said=said)
        self.pool("PAUSE")
        systemctl("stop", old.unit)
        # Whoever starts PostgreSQL meanwhile, an apt for one, does not start this; a reboot does.
        systemctl("mask", "--runtime", old.unit)
        self.require_clean(self.found["data"], old)
        host.folder_for_postgres(host.SOCKETS)
        with host.Private(old).up() as asked:
            before = inventory.take(asked)
        self.require_clean(self.found["data"], old)
        self.pg_upgrade()
        self.write(inventory=before)
        if self.note["mode"] == "link":
            # From its start on, the new server writes into files that were the old one's.
            self.write(phase=plan.SWITCHED)
        host.folder_for_postgres(host.SOCKETS)
        with host.Private(new).up("archive_mode=off") as asked:
            unlike = inventory.differences(before, inventory.take(asked))
            version = asked.query("SELECT to_json(current_setting('server_version'))")
        if unlike:
            lines = "\n".join(f"  - {line}" for line in unlike[:20])
            raise Failed(f"what is in the new cluster is not what was in the old one:\n{lines}")
        self.write(phase=plan.SWITCHED, said={**said, "to": version, "compared": inventory.summary(before)})
        self.open()

    @staticmethod
    def require_clean(data: str, cluster: Cluster) -> None:
        state = standby.control(cluster, data).get("Database cluster state", "unknown")
        if state != "shut down":
            raise Failed(f"cluster {cluster.version}/main was not shut down cleanly: {state}")

    def open(self) -> None:
        """Lead everybody to the new cluster. Each step is one that a second run may take again."""
        old, new = Cluster(self.note["from"]), Cluster(self.note["to"])
        host.exchange(old, new)
        systemctl("unmask", "--runtime", old.unit)
        systemctl("daemon-reload")
        if new.settings_if_up() is None:
            # From here on clients may write into it, whether or not we hear of that.
            self.write(opened=True)
            new.control("start")
            new.wait(self.timeout)
        self.pool("RESUME")
        if "down" not in self.note:
            self.write(down=round(time.time() - self.note["stopped"], 1))

    def put_back(self) -> None:
        """The old cluster serves again as if nothing had been; what there is of the new one goes."""
        old = Cluster(self.note["from"])
        host.end_units()
        systemctl("stop", Cluster(self.note["to"]).unit, check=False)
        data = self.found.get("data") or standby.data_directory(old)
        control = f"{data}/global/pg_control"
        if os.path.exists(f"{control}.old"):
            # Linked, and never started: the files are as they were, this one was set aside to keep anybody from them.
            os.rename(f"{control}.old", control)
        systemctl("unmask", "--runtime", old.unit)
        host.set_port(old, old.port)
        host.set_start(old, "auto")
        systemctl("daemon-reload")
        # Whether or not it answers: a stop that the killed run has asked for may not have come to its end yet.
        systemctl("reset-failed", old.unit, check=False)
        systemctl("start", old.unit)
        old.wait(self.timeout)
        self.pool("RESUME")
        self.drop_new()
        self.forget()

    def pool(self, verb: str) -> None:
        """PgBouncer lets its clients wait in place of failing them, unless one is in the middle of something long."""
        if not self.pooler_port or not os.path.exists(f"{SOCKET_DIRECTORY}/.s.PGSQL.{self.pooler_port}"):
            return
        command = ["runuser", "-u", "pgbouncer", "--", "psql", "-XAtw", "-h", SOCKET_DIRECTORY]
        command += ["-p", str(self.pooler_port), "-d", "pgbouncer", "-c", verb]
        # Paused already, not paused any more, or busy after that time: none of it keeps the upgrade from going on.
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", timeout=5, check=False
            )

    # -- after the switch ----------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """What the new server needs to be as good as the old one: statistics, extensions of its own version."""
        new = Cluster(self.note["to"])
        said, lines = dict(self.note["said"]), []
        if "compared" not in said:  # killed with link=true, between the copy and the comparison
            said["to"] = new.query("SELECT to_json(current_setting('server_version'))")
            said["compared"] = inventory.summary(self.note["inventory"])
            lines += inventory.differences(self.note["inventory"], inventory.take(new), sizes=False)
        command = [f"{new.binaries}/vacuumdb", "--all", "--analyze-in-stages", "--jobs", str(os.cpu_count() or 1)]
        code, out, err = run_as_postgres(command, port=new.port)
        if code != 0:
            raise Failed(f"vacuumdb --analyze-in-stages ended with {code}: {(err or out).strip()}. Run this again")
        for database in new.query("SELECT json_agg(datname ORDER BY datname) FROM pg_database WHERE datallowconn"):
            for name, before, after in new.query(OUTDATED_EXTENSIONS, database):
                try:
                    new.execute(f"ALTER EXTENSION {name} UPDATE;", database)
                    lines.append(f"database {database}: extension {name} {before} -> {after}")
                except ServerError as error:
                    lines.append(f"database {database}: extension {name} stays at {before}: {error}")
            lines += [f"database {database}: {line}; {REINDEX}" for line in new.query(COLLATIONS, database)]
        if int(new.version) >= 15:
            lines += [f"{line}; {REINDEX}" for line in new.query(DATABASE_COLLATIONS)]
        self.write(phase=plan.DONE, said={**said, "after": lines})

    # -- the way back --------------------------------------------------------------------------------------------------

    def lost(self) -> List[str]:
        """What was written since the switch, and would be lost."""
        new = Cluster(self.note["to"])
        plan.require_no_replicas(self.replication, new.version)
        if new.settings_if_up() is None:
            if self.note["phase"] == plan.RETURNING:
                return []  # said by the run that has stopped it
            return [f"cluster {new.version}/main does not answer, so nobody knows"]
        names = new.query("SELECT json_agg(datname) FROM pg_database WHERE datallowconn")
        counters = {name: new.query(WRITTEN, name) for name in names}
        lines: List[str] = inventory.written(
            {name: tables for name, tables in counters.items() if tables},
            inventory.differences(self.note["inventory"], inventory.take(new), sizes=False),
        )
        return lines

    def give_back(self) -> float:
        """The old cluster as it was at the switch, in the new one's place, which is kept; the seconds it took."""
        old, new = Cluster(self.note["from"]), Cluster(self.note["to"])
        started = time.monotonic()
        self.write(phase=plan.RETURNING)
        self.pool("PAUSE")
        systemctl("stop", new.unit)
        host.exchange(new, old)
        systemctl("daemon-reload")
        if old.settings_if_up() is None:
            old.control("start")
            old.wait(self.timeout)
        self.pool("RESUME")
        self.write(phase=plan.RETURNED)
        return time.monotonic() - started


REINDEX = "text sorts otherwise now: REINDEX DATABASE, then ALTER … REFRESH COLLATION VERSION"


def provider_columns(version: int) -> str:
    if version < 15:
        return ""
    return f", 'provider', datlocprovider, 'locale', {'datlocale' if version >= 17 else 'daticulocale'}"


def read_note() -> plan.Note:
    try:
        with open(NOTE, encoding="utf-8") as handle:
            return plan.parse_note(handle.read())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise Failed(f"{NOTE}, which says how far an upgrade has come, cannot be read: {error}") from error
