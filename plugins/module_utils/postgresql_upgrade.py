"""A major upgrade of the local PostgreSQL cluster, step by step, so that a run killed anywhere can go on or go back.

A note on the host says what has been reached. Until it says `switched`, the old cluster is the one with the data,
nobody but us has seen the new one, and whatever goes wrong ends with the old one serving again. What runs beside the
clusters' own services (pg_upgrade, and the servers that it and we start for nobody else) is in one unit, which a later
run can end as a whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import json
import os
import pwd
import re
import shutil
import subprocess
import time
from typing import Any, Callable, Dict, Iterator, List, Optional

from ansible_collections.shipshape.droplet.plugins.module_utils import postgresql_upgrade_plan as plan
from ansible_collections.shipshape.droplet.plugins.module_utils import secret_file
from ansible_collections.shipshape.droplet.plugins.module_utils.postgresql_server import (
    SOCKET_DIRECTORY,
    Cluster,
    ServerError,
    clusters_in_use,
    live_versions,
    run_as_postgres,
    start_mode,
)

NOTE = "/var/lib/shipshape/postgresql/upgrade.json"
LOCK = "/run/shipshape-postgresql-upgrade.lock"
UNIT = "shipshape-postgresql-upgrade"
SOCKETS = "/run/shipshape-postgresql-upgrade"
LOGS = "/var/log/postgresql"
#: Up to so much data, every row is counted while the apps wait; beyond, the sizes of the tables' files are compared.
COUNTED_BYTES = 4 << 30
#: Of SQL that psql builds its statements from; a session of ours has no plans to keep.
GEXEC = "\\gexec\n"

SERVER = """
SELECT json_build_object(
  'version', current_setting('server_version'),
  'data', current_setting('data_directory'),
  'checksums', current_setting('data_checksums') = 'on',
  'segment_mb', (SELECT setting::bigint / 1048576 FROM pg_settings WHERE name = 'wal_segment_size'),
  'recovery', pg_is_in_recovery(),
  'superuser', (SELECT rolname FROM pg_roles WHERE oid = 10),
  'prepared', (SELECT coalesce(json_agg(gid), '[]') FROM pg_prepared_xacts),
  'slots', (SELECT coalesce(json_agg(json_build_object('name', slot_name, 'type', slot_type)), '[]')
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
EXTENSIONS = "SELECT coalesce(json_agg(extname ORDER BY extname), '[]') FROM pg_extension"
ROLES = """
SELECT coalesce(json_object_agg(r.rolname, md5(concat_ws('|', r.rolsuper, r.rolinherit, r.rolcreaterole, r.rolcreatedb,
  r.rolcanlogin, r.rolreplication, r.rolbypassrls, r.rolconnlimit, r.rolvaliduntil, r.rolpassword,
  (SELECT string_agg(g.rolname, ',' ORDER BY g.rolname) FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid
    WHERE m.member = r.oid),
  (SELECT s.setconfig::text FROM pg_db_role_setting s WHERE s.setrole = r.oid AND s.setdatabase = 0)))), '{}')
FROM pg_authid r WHERE r.rolname !~ '^pg_'
"""
DATABASES = """
SELECT json_object_agg(datname, concat_ws(' ', pg_get_userbyid(datdba), pg_encoding_to_char(encoding), datcollate,
  datctype, datconnlimit)) FROM pg_database WHERE datallowconn
"""
# What belongs to an extension is the extension's, and may be another in its next version.
OWN = "NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = '{0}'::regclass AND d.objid = {1} AND d.deptype = 'e')"
USER_SCHEMA = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"
OBJECTS = f"""
SELECT json_build_object(
  'extensions', ({EXTENSIONS}),
  'invalid', (SELECT coalesce(json_agg(indexrelid::regclass::text), '[]') FROM pg_index WHERE NOT indisvalid),
  'objects', (SELECT coalesce(json_object_agg(kind, number), '{{}}') FROM (
    SELECT CASE c.relkind WHEN 'i' THEN 'indexes' WHEN 'I' THEN 'indexes' WHEN 'S' THEN 'sequences'
        WHEN 'v' THEN 'views' ELSE 'other relations' END AS kind, count(*) AS number
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE {USER_SCHEMA} AND c.relkind NOT IN ('r', 'm', 't') AND {OWN.format("pg_class", "c.oid")} GROUP BY 1
    UNION ALL SELECT 'functions', count(*) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
      WHERE {USER_SCHEMA} AND {OWN.format("pg_proc", "p.oid")}
    UNION ALL SELECT 'triggers', count(*) FROM pg_trigger WHERE NOT tgisinternal) AS counted),
  'tables', (SELECT coalesce(json_object_agg(format('%I.%I', n.nspname, c.relname),
      json_build_object('rows', NULL, 'bytes', pg_relation_size(c.oid))), '{{}}')
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE {USER_SCHEMA} AND c.relkind IN ('r', 'm') AND c.relpersistence <> 't' AND {OWN.format("pg_class", "c.oid")}))
"""
# An unlogged table is one all the same; of a view that was never filled, nobody can count the rows.
COUNT = f"""
SELECT format('SELECT json_build_array(%L, (SELECT count(*) FROM ONLY %I.%I))', format('%I.%I', n.nspname, c.relname),
  n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE {USER_SCHEMA} AND c.relkind IN ('r', 'm') AND c.relispopulated AND c.relpersistence <> 't'
  AND {OWN.format("pg_class", "c.oid")} {GEXEC}"""
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


class Failed(Exception):
    """A step of the upgrade that did not go well; the text is for the operator."""


def systemctl(*words: str, check: bool = True) -> str:
    done = subprocess.run(["systemctl", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    text = done.stdout.decode("utf-8", "replace").strip()
    if check and done.returncode != 0:
        raise Failed(f"'systemctl {' '.join(words)}' ended with {done.returncode}: {text}")
    return text


def run(*command: str) -> str:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, cwd="/"
    )
    text = done.stdout.decode("utf-8", "replace").strip()
    if done.returncode != 0:
        raise Failed(f"'{' '.join(command)}' ended with {done.returncode}:\n{text}")
    return text


def owned_by_postgres(path: str) -> None:
    account = pwd.getpwnam("postgres")
    os.chown(path, account.pw_uid, account.pw_gid)


def folder_for_postgres(path: str) -> None:
    """Empty, and nobody else's to read."""
    shutil.rmtree(path, ignore_errors=True)
    os.mkdir(path, 0o700)
    owned_by_postgres(path)


def size_of(directory: str) -> int:
    """Bytes on the disk below it. Files of a live server may go meanwhile."""
    total = 0
    for folder, _folders, files in os.walk(directory):
        for name in files:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(folder, name)).st_blocks * 512
    return total


@contextlib.contextmanager
def alone(seconds: int = 900) -> Iterator[None]:
    """One at a time. A module whose controller has died goes on to its end, and the next run waits for that."""
    with open(LOCK, "a", encoding="utf-8") as handle:
        deadline = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise Failed(
                        f"another run of this upgrade is still at work on the host after {seconds} s"
                    ) from None
                time.sleep(1)
        yield


class Private(Cluster):
    """The same cluster, started for us alone: no address, and a socket where only root and postgres come."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster.version, cluster.name, cluster.port)
        self.socket_directory = SOCKETS

    @contextlib.contextmanager
    def up(self, *settings: str, seconds: int = 600) -> Iterator[Cluster]:
        own = [
            "listen_addresses=",
            f"unix_socket_directories={SOCKETS}",
            "unix_socket_permissions=0700",
            "autovacuum=off",
        ]
        command = [f"{self.binaries}/postgres", "-D", self.configuration, "-p", str(self.port)]
        for setting in [*own, *settings]:
            command += ["-c", setting]
        unit = unit_name()
        in_unit(command, "/", unit)
        deadline = time.monotonic() + seconds
        while not self.started_at():
            if time.monotonic() > deadline or systemctl("is-active", unit, check=False) != "active":
                said = run("journalctl", "--unit", unit, "--lines=12", "--no-pager", "--quiet", "--output=cat")
                raise Failed(f"cluster {self.version}/{self.name} does not start for the comparison:\n{said}")
            time.sleep(0.05)
        try:
            yield self
        finally:
            end_units()


def unit_name() -> str:
    """One that systemd has never had: of a unit that has just ended it may still have the name."""
    return f"{UNIT}-{os.getpid()}-{time.monotonic_ns()}.service"


def in_unit(command: List[str], directory: str, server: str = "") -> str:
    """Run as postgres, and wait unless it is a server. Whatever it starts ends with its unit, also when we were killed.

    SIGINT is a fast shutdown to a server, which then ends its processes itself; pg_upgrade does not end its servers.
    """
    properties = ["KillSignal=SIGINT", f"KillMode={'mixed' if server else 'control-group'}", "TimeoutStopSec=600"]
    properties.append(f"WorkingDirectory={directory}")
    options = ["--quiet", "--collect", f"--unit={server or unit_name()}", "--uid=postgres", "--setenv=LC_ALL=C"]
    options += [f"--property={one}" for one in properties]
    return run("systemd-run", *options, *([] if server else ["--wait", "--pipe"]), *command)


def end_units() -> None:
    """End what an upgrade has running, this one or one that was killed: a fast shutdown of each server."""
    systemctl("stop", f"{UNIT}-*.service", check=False)


class Upgrade:
    """From one cluster `main` to the one of another version."""

    def __init__(
        self,
        wanted: str,
        link: bool = False,
        backup_hours: float = 26,
        backups: Optional[List[str]] = None,
        pooler_port: int = 0,
        timeout: int = 60,
    ) -> None:
        self.wanted = wanted
        self.link = link
        self.backup_hours = backup_hours
        self.backups = backups or []
        self.pooler_port = pooler_port
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
        found["extensions"] = {name: old.query(EXTENSIONS, name) for name in found["databases"]}
        installed = os.path.exists(f"{new.binaries}/pg_upgrade")
        controls = glob.glob(f"/usr/share/postgresql/{new.version}/extension/*.control")
        found["available"] = [os.path.basename(path)[: -len(".control")] for path in controls] if installed else None
        found["bytes"] = size_of(found["data"])
        found["mode"] = "link" if self.link else "clone" if clones(os.path.dirname(found["data"])) else "copy"
        disk = os.statvfs("/var/lib/postgresql")
        found["free"] = disk.f_bavail * disk.f_frsize
        # What an earlier try has left is thrown away first.
        found["free"] += size_of(self.data_of(new)) if self.note.get("to") == new.version else 0
        found["beside"] = [name for name in clusters_in_use() if not name.endswith("/main")]
        found["backups"] = {path: hours_since(path) for path in self.backups}
        return found

    @staticmethod
    def data_of(cluster: Cluster) -> str:
        """Where pg_createcluster puts it; an old cluster says itself where it is."""
        return f"/var/lib/postgresql/{cluster.version}/{cluster.name}"

    def check(self) -> List[str]:
        """Refuse with all that stands in the way; returns what is worth knowing besides. Changes nothing."""
        if not os.path.isdir("/run/systemd/system"):
            raise plan.Refused("this host is not run by systemd, which keeps the servers of the upgrade together")
        try:
            self.found = self.look()
        except ServerError as error:
            raise plan.Refused(
                f"cluster {self.old.version}/main, which holds the data, does not answer: {error}"
            ) from None
        lines = plan.obstacles(self.found, self.wanted, self.backup_hours)
        if lines:
            raise plan.Refused("this has to be settled first:\n" + "\n".join(f"  - {line}" for line in lines))
        return plan.remarks(self.found, self.wanted)

    # -- the new cluster, beside ---------------------------------------------------------------------------------------

    def prepare(self, configure: Callable[[], None]) -> None:
        """An empty cluster of the new version, as it is declared, and what pg_upgrade thinks of the two."""
        old, new = self.old, self.new
        if not os.path.exists(f"{new.binaries}/pg_upgrade"):
            raise Failed(f"PostgreSQL {new.version} is not installed here: {new.binaries}/pg_upgrade is missing")
        self.drop_new()
        self.note = {"from": old.version, "to": new.version}
        self.write(phase=plan.PREPARED, mode=self.found["mode"])
        run(
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
        end_units()
        systemctl("stop", self.new.unit, check=False)
        for path in (self.data_of(self.new), self.new.configuration):
            shutil.rmtree(path, ignore_errors=True)
        systemctl("daemon-reload")

    def logs(self) -> str:
        return f"{LOGS}/shipshape-upgrade-{self.note['from']}-{self.note['to']}"

    def pg_upgrade(self, *options: str) -> None:
        old, new = Cluster(self.note["from"]), Cluster(self.note["to"])
        folder_for_postgres(self.logs())
        folder_for_postgres(SOCKETS)
        mode = {"link": ["--link"], "clone": ["--clone"], "copy": []}[self.note["mode"]]
        command = [
            f"{new.binaries}/pg_upgrade", "-b", old.binaries, "-B", new.binaries, "-d", old.configuration,
            "-D", new.configuration, "-p", str(old.port), "-P", str(new.port + 1), "-s", SOCKETS,
            "-j", str(os.cpu_count() or 1), *mode, *options,
            # Until the repository is told of it, it has nothing to say to it.
            "-O", "-c archive_mode=off",
        ]  # fmt: skip
        try:
            in_unit(command, self.logs())
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
        folder_for_postgres(SOCKETS)
        with Private(old).up() as asked:
            before = inventory(asked)
        self.require_clean(self.found["data"], old)
        self.pg_upgrade()
        self.write(inventory=before)
        if self.note["mode"] == "link":
            # From its start on, the new server writes into files that were the old one's.
            self.write(phase=plan.SWITCHED)
        folder_for_postgres(SOCKETS)
        with Private(new).up("archive_mode=off") as asked:
            unlike = plan.differences(before, inventory(asked))
            version = asked.query("SELECT to_json(current_setting('server_version'))")
        if unlike:
            lines = "\n".join(f"  - {line}" for line in unlike[:20])
            raise Failed(f"what is in the new cluster is not what was in the old one:\n{lines}")
        self.write(phase=plan.SWITCHED, said={**said, "to": version, "compared": plan.summary(before)})
        self.open()

    @staticmethod
    def require_clean(data: str, cluster: Cluster) -> None:
        _code, out, _err = run_as_postgres([f"{cluster.binaries}/pg_controldata", "-D", data])
        state = re.search(r"^Database cluster state: +(.+)$", out, re.MULTILINE)
        if not state or state[1] != "shut down":
            raise Failed(
                f"cluster {cluster.version}/main was not shut down cleanly: {state[1] if state else 'unknown'}"
            )

    def open(self) -> None:
        """Lead everybody to the new cluster. Each step is one that a second run may take again."""
        old, new = Cluster(self.note["from"]), Cluster(self.note["to"])
        exchange(old, new)
        systemctl("unmask", "--runtime", old.unit)
        systemctl("daemon-reload")
        if new.settings_if_up() is None:
            new.control("start")
            new.wait(self.timeout)
        self.pool("RESUME")
        if "down" not in self.note:
            self.write(down=round(time.time() - self.note["stopped"], 1))

    def put_back(self) -> None:
        """The old cluster serves again as if nothing had been; what there is of the new one goes."""
        old = Cluster(self.note["from"])
        end_units()
        systemctl("stop", Cluster(self.note["to"]).unit, check=False)
        data = self.found.get("data") or data_directory(old)
        control = f"{data}/global/pg_control"
        if os.path.exists(f"{control}.old"):
            # Linked, and never started: the files are as they were, this one was set aside to keep anybody from them.
            os.rename(f"{control}.old", control)
        systemctl("unmask", "--runtime", old.unit)
        set_port(old, old.port)
        set_start(old, "auto")
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
            said["compared"] = plan.summary(self.note["inventory"])
            lines += plan.differences(self.note["inventory"], inventory(new), sizes=False)
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
        if new.settings_if_up() is None:
            if self.note["phase"] == plan.RETURNING:
                return []  # said by the run that has stopped it
            return [f"cluster {new.version}/main does not answer, so nobody knows"]
        names = new.query("SELECT json_agg(datname) FROM pg_database WHERE datallowconn")
        counters = {name: new.query(WRITTEN, name) for name in names}
        return plan.written(
            {name: tables for name, tables in counters.items() if tables},
            plan.differences(self.note["inventory"], inventory(new), sizes=False),
        )

    def give_back(self) -> float:
        """The old cluster as it was at the switch, in the new one's place, which is kept; the seconds it took."""
        old, new = Cluster(self.note["from"]), Cluster(self.note["to"])
        started = time.monotonic()
        self.write(phase=plan.RETURNING)
        self.pool("PAUSE")
        systemctl("stop", new.unit)
        exchange(new, old)
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


def hours_since(path: str) -> Optional[float]:
    """Since the file was written, which each success of a backup writes anew."""
    try:
        return (time.time() - os.stat(path).st_mtime) / 3600
    except FileNotFoundError:
        return None


def clones(directory: str) -> bool:
    """Whether the file system copies a file by sharing its blocks until one of the two is written."""
    source, target = f"{directory}/.shipshape-clone", f"{directory}/.shipshape-clone-2"
    try:
        with open(source, "wb") as handle:
            handle.write(b"\0" * 65536)
        command = ["cp", "--reflink=always", source, target]
        return subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 0
    finally:
        for path in (source, target):
            with contextlib.suppress(FileNotFoundError):
                os.remove(path)


def data_directory(cluster: Cluster) -> str:
    """What the configuration of a cluster that does not run says."""
    code, out, err = run_as_postgres(
        [f"{cluster.binaries}/postgres", "-D", cluster.configuration, "-C", "data_directory"]
    )
    if code != 0:
        raise Failed(f"cluster {cluster.version}/main has no configuration that can be read: {err.strip()}")
    return out.strip()


def set_start(cluster: Cluster, mode: str) -> None:
    """Whether the cluster starts with the host: auto, or disabled, which also keeps an operator's hand from it."""
    if start_mode(cluster.configuration) == mode:
        return
    path = f"{cluster.configuration}/start.conf"
    with open(f"{path}.new", "w", encoding="utf-8") as handle:
        handle.write(f"# Written by {plan.PLAYBOOK}.\n{mode}\n")
        handle.flush()
        os.fsync(handle.fileno())
    owned_by_postgres(f"{path}.new")
    os.replace(f"{path}.new", path)


def set_port(cluster: Cluster, port: int) -> None:
    of = (cluster.version, cluster.name)
    if run("pg_conftool", "--short", *of, "show", "port") != str(port):
        run("pg_conftool", *of, "set", "port", str(port))


def exchange(leaving: Cluster, coming: Cluster) -> None:
    """The port and the start at boot go over. At no moment do both have them."""
    set_start(leaving, "disabled")
    set_port(leaving, leaving.port + 1)
    set_port(coming, coming.port)
    set_start(coming, "auto")


def inventory(cluster: Cluster) -> Dict[str, Any]:
    """What is in a server, in numbers: the same before and after, or something is lost."""
    like = cluster.query(DATABASES)
    found: Dict[str, Any] = {"roles": cluster.query(ROLES), "databases": {}}
    counted = cluster.query("SELECT sum(pg_database_size(oid)) FROM pg_database") <= COUNTED_BYTES
    for name in sorted(like):
        database = cluster.query(OBJECTS, name)
        for line in cluster.execute(COUNT, name).splitlines() if counted else []:
            table, rows = json.loads(line)
            database["tables"][table]["rows"] = rows
        found["databases"][name] = {"like": like[name], **database}
    return found
