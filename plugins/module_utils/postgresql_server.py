"""The local cluster as Debian lays it out: talk to it over its socket, have it run with the configuration on disk."""

from __future__ import annotations

import glob
import json
import os
import pwd
import subprocess
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

ACCOUNT = "postgres"
SOCKET_DIRECTORY = "/var/run/postgresql"
CONFIGURATIONS = "/etc/postgresql"
# Nothing of a session of ours is kept by the server: a verifier is not a password, but nobody else's business either.
QUIET = (
    "SET log_statement = 'none'; SET log_min_duration_statement = -1; SET log_min_error_statement = 'panic'; "
    "SET pg_stat_statements.track_utility = off; SET client_min_messages = 'warning'; "
    # What a run makes it makes again; it must not wait for a replica that this very run is about to set up.
    "SET synchronous_commit = 'local';\n"
)

SETTINGS = """
SELECT json_build_object(
  'version', current_setting('server_version_num')::int / 10000,
  'loaded', extract(epoch FROM pg_conf_load_time()),
  'data', current_setting('data_directory'),
  'standby', pg_is_in_recovery(),
  'checksums', current_setting('data_checksums') = 'on',
  'new', NOT EXISTS (SELECT FROM pg_database WHERE datname NOT IN ('postgres', 'template0', 'template1'))
    AND NOT EXISTS (SELECT FROM pg_roles WHERE rolname !~ '^pg_' AND rolname <> 'postgres'),
  'files', json_build_array(current_setting('config_file'), current_setting('hba_file'), current_setting('ident_file'),
    current_setting('ssl_cert_file'), current_setting('ssl_key_file')),
  'pending', (SELECT coalesce(json_agg(s.name ORDER BY s.name), '[]') FROM pg_settings s WHERE s.pending_restart
    AND NOT EXISTS (SELECT FROM pg_file_settings f
      WHERE f.name = s.name AND f.sourcefile LIKE '%/postgresql.auto.conf')))
"""
BAD_LINES = """
SELECT coalesce(json_agg(line), '[]') FROM (
  SELECT format('%s line %s: %s', sourcefile, sourceline, error) AS line FROM pg_file_settings
    WHERE error IS NOT NULL AND error <> 'setting could not be applied'
  UNION ALL
  SELECT format('pg_hba.conf line %s: %s', line_number, error) FROM pg_hba_file_rules WHERE error IS NOT NULL) AS bad
"""


class ServerError(Exception):
    """The server, or a program that reaches it, said no."""


def _as_postgres() -> Callable[[], None]:
    account = pwd.getpwnam(ACCOUNT)

    def become() -> None:
        if os.geteuid() == 0:
            os.initgroups(ACCOUNT, account.pw_gid)
            os.setgid(account.pw_gid)
            os.setuid(account.pw_uid)

    return become


def start_as_postgres(
    arguments: List[str], port: int = 5432, environment: Optional[Dict[str, str]] = None, **streams: Any
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        arguments,
        env={
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL": "C",
            "PGHOST": SOCKET_DIRECTORY,
            "PGPORT": str(port),
            "PGCLIENTENCODING": "UTF8",
            "PGCONNECT_TIMEOUT": "10",
            **(environment or {}),
        },
        cwd="/",
        preexec_fn=_as_postgres(),  # a plain setuid: no PAM session, no entry in the authentication log
        **streams,
    )


def run_as_postgres(
    arguments: List[str], stdin: str = "", port: int = 5432, environment: Optional[Dict[str, str]] = None
) -> Tuple[int, str, str]:
    pipe = subprocess.PIPE
    process = start_as_postgres(arguments, port, environment, stdin=pipe, stdout=pipe, stderr=pipe)
    out, err = process.communicate(stdin.encode("utf-8"))
    return process.returncode, out.decode("utf-8", "replace"), err.decode("utf-8", "replace")


def conninfo(database: str) -> str:
    """A name as a connection string, because psql takes a name with = in it for one."""
    quoted = database.replace("\\", "\\\\").replace("'", "\\'")
    return f"dbname='{quoted}'"


def start_mode(configuration: str) -> str:
    """auto, manual or disabled: whether the cluster configured there starts with the host, by hand, or not at all."""
    try:
        with open(os.path.join(configuration, "start.conf"), encoding="utf-8") as handle:
            words = [line.partition("#")[0].strip() for line in handle]
    except FileNotFoundError:
        return "auto"
    return next(filter(None, words), "auto")


def clusters_in_use() -> List[str]:
    """'VERSION/NAME' of the clusters on this host that may be started. One that is disabled is kept, and no more."""
    folders = map(os.path.dirname, glob.glob(f"{CONFIGURATIONS}/*/*/postgresql.conf"))
    return sorted("/".join(folder.split("/")[-2:]) for folder in folders if start_mode(folder) != "disabled")


def live_versions(name: str = "main") -> List[str]:
    return [cluster.split("/")[0] for cluster in clusters_in_use() if cluster.split("/")[1] == name]


def another_version(version: str) -> str:
    """Why PostgreSQL of that version cannot be set up here: the data is in a cluster of another. Else nothing."""
    others = [cluster for cluster in clusters_in_use() if cluster.split("/")[0] != version]
    if not others:
        return ""
    old = others[0].split("/")[0]
    up = int(old) < int(version) if version.isdigit() else False
    do = f"move it: playbooks/maintenance/upgrade_postgresql.yml, or set postgresql_version to '{old}'"
    return (
        f"postgresql_version is {version}, and this host has cluster {', '.join(others)} of another version. "
        "Nothing was changed. A cluster's data does not move by changing the variable: "
        + (do if up else f"set postgresql_version to '{old}'")
    )


class Cluster:
    """One cluster (version and name), reached through its socket."""

    def __init__(self, version: str, name: str = "main", port: int = 5432) -> None:
        self.version = version
        self.name = name
        self.port = port
        self.configuration = f"{CONFIGURATIONS}/{version}/{name}"
        self.binaries = f"/usr/lib/postgresql/{version}/bin"
        self.unit = f"postgresql@{version}-{name}.service"
        self.socket_directory = SOCKET_DIRECTORY

    @property
    def exists(self) -> bool:
        return os.path.exists(os.path.join(self.configuration, "postgresql.conf"))

    @property
    def installed(self) -> bool:
        return os.path.exists(os.path.join(self.binaries, "psql"))

    # -- talking to it ------------------------------------------------------------------------------------------------

    def execute(self, sql: str, database: str = "postgres") -> str:
        psql = [os.path.join(self.binaries, "psql"), "-XqAt", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=terse"]
        # The statements go by standard input: an argument could be read in the process list.
        where = {"PGHOST": self.socket_directory}
        code, out, err = run_as_postgres(psql + ["-d", conninfo(database), "-f", "-"], QUIET + sql, self.port, where)
        if code != 0:
            raise ServerError(err.replace("psql:<stdin>:", "line ").strip() or f"psql ended with {code}")
        return out

    def query(self, sql: str, database: str = "postgres") -> Any:
        return json.loads(self.execute(sql, database))

    def started_at(self) -> float:
        """When the server that answers was started, seconds since the epoch; 0 while none answers."""
        try:
            return float(self.execute("SELECT extract(epoch FROM pg_postmaster_start_time())"))
        except ServerError:
            return 0.0

    def wait(self, seconds: int, since: float = 0.0) -> None:
        """Until a server answers that was started later than `since`; give up at once when its unit has failed."""
        deadline = time.monotonic() + seconds
        while self.started_at() <= since:
            if time.monotonic() > deadline:
                raise ServerError(
                    f"cluster {self.version}/{self.name} does not answer after {seconds} s. "
                    f"The end of its log:\n{self.log_tail()}"
                )
            if self.has_failed():
                raise ServerError(
                    f"cluster {self.version}/{self.name} does not start. The end of its log:\n{self.log_tail()}"
                )
            time.sleep(0.1)

    def log_tail(self, lines: int = 15) -> str:
        path = f"/var/log/postgresql/postgresql-{self.version}-{self.name}.log"
        try:
            with open(path, encoding="utf-8", errors="replace") as handle:
                return "".join(handle.readlines()[-lines:])
        except OSError as error:
            return str(error)

    # -- the service --------------------------------------------------------------------------------------------------

    def control(self, verb: str) -> None:
        """Ask for it; `wait` sees the outcome two seconds before the unit's own command calls a start done."""
        if os.path.isdir("/run/systemd/system"):
            if verb == "start":
                subprocess.run(["systemctl", "reset-failed", self.unit], stderr=subprocess.DEVNULL, check=False)
            command = ["systemctl", "--no-block", verb, self.unit]
        else:
            command = ["pg_ctlcluster", self.version, self.name, verb]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        if done.returncode != 0:
            raise ServerError(
                f"'{' '.join(command)}' ended with {done.returncode}:\n"
                f"{done.stdout.decode('utf-8', 'replace').strip()}\nThe end of the cluster's log:\n{self.log_tail()}"
            )

    def has_failed(self) -> bool:
        if not os.path.isdir("/run/systemd/system"):
            return False
        return subprocess.run(["systemctl", "is-failed", "--quiet", self.unit], check=False).returncode == 0

    def starts_at_boot(self) -> bool:
        if not os.path.isdir("/run/systemd/system"):
            return True
        command = ["systemctl", "is-enabled", "--quiet", "postgresql.service"]
        return subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 0

    def check_configuration(self) -> None:
        """What a start would say to the configuration on disk, asked before the running server is stopped."""
        postgres = os.path.join(self.binaries, "postgres")
        code, _, err = run_as_postgres([postgres, "-D", self.configuration, "-C", "data_directory"])
        if code != 0:
            raise ServerError(f"the server would not start with the configuration on disk:\n{err.strip()}")

    def settings(self) -> Dict[str, Any]:
        found: Dict[str, Any] = self.query(SETTINGS)
        return found

    def settings_if_up(self) -> Optional[Dict[str, Any]]:
        try:
            return self.settings()
        except ServerError:
            return None

    def outdated(self, settings: Dict[str, Any]) -> List[str]:
        """Files written after the server last read them. True also after a run that was cut off before its reload."""
        files = [path for path in settings["files"] if os.path.isabs(path)]
        directory = os.path.join(os.path.dirname(settings["files"][0]), "conf.d")
        # The directory itself is newer, too, when a file has gone.
        files += [directory, *glob.glob(os.path.join(directory, "*.conf"))]
        now = time.time()
        newer = []
        for path in files:
            try:
                written = os.stat(path).st_ctime
            except OSError:
                continue
            # A time in the future (the clock was set back) would ask for a reload at every run.
            if settings["loaded"] < written <= now:
                newer.append(path)
        return newer

    def write_checksums(self, data: str, seconds: int) -> None:
        """Stop the server, give every page its checksum, start it: a moment's work where there is no data yet."""
        self.control("stop")
        deadline = time.monotonic() + seconds
        while os.path.exists(os.path.join(data, "postmaster.pid")):
            if time.monotonic() > deadline:
                raise ServerError(f"cluster {self.version}/{self.name} does not stop:\n{self.log_tail()}")
            time.sleep(0.05)
        code, _, err = run_as_postgres([os.path.join(self.binaries, "pg_checksums"), "--enable", "-D", data])
        self.control("start")
        if code != 0:
            raise ServerError(f"pg_checksums could not write the checksums of pages:\n{err.strip()}")

    def reload(self, seconds: int = 15) -> None:
        bad = self.query(BAD_LINES)
        if bad:
            raise ServerError(
                "the configuration on disk has errors, the server keeps the old one:\n{}".format("\n".join(bad))
            )
        before = self.settings()["loaded"]
        self.execute("SELECT pg_reload_conf()")
        deadline = time.monotonic() + seconds
        while self.settings()["loaded"] <= before:
            if time.monotonic() > deadline:
                raise ServerError(f"the server did not take up its configuration:\n{self.log_tail()}")
            time.sleep(0.05)


def settle(cluster: Cluster, timeout: int, apply: bool) -> Tuple[List[str], Optional[Dict[str, Any]]]:
    """Have the cluster run with what is on disk: (what was or would be done, its settings if it can be asked).

    A restart only when a changed setting asks for one, a reload when anything changed, nothing otherwise.
    """
    actions: List[str] = []
    if not cluster.starts_at_boot():
        actions.append("start PostgreSQL at boot")
        if apply:
            subprocess.run(["systemctl", "enable", "--quiet", "postgresql.service"], check=True)
    settings = cluster.settings_if_up()
    if settings is None:
        actions.append(f"start cluster {cluster.version}/{cluster.name}")
        if not apply:
            return actions, None
        cluster.check_configuration()
        cluster.control("start")
        cluster.wait(timeout)
        settings = cluster.settings()
    if cluster.outdated(settings):
        actions.append("reload the configuration")
        if apply:
            cluster.reload()
            settings = cluster.settings()
    unsummed = settings["new"] and not settings["checksums"]
    if unsummed:
        actions.append("write the checksums of pages")
    if settings["pending"]:
        actions.append("restart for {}".format(", ".join(settings["pending"])))
    if (settings["pending"] or unsummed) and apply:
        cluster.check_configuration()
        before = cluster.started_at()
        if unsummed:
            cluster.write_checksums(settings["data"], timeout)
        else:
            cluster.control("restart")
        cluster.wait(timeout, since=before)
        settings = cluster.settings()
    return actions, settings
