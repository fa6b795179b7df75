"""The command line: run, list, watch, restore, promote, drop, rebuild, drill, open, upgrade, check."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from shipshape_pgbackrest import promote, rebuild, restore
from shipshape_pgbackrest.drill import drill
from shipshape_pgbackrest.run import run
from shipshape_pgbackrest.side import Side
from shipshape_pgbackrest.tool import Settings, info, lock, newest, pgbackrest, said, stop_time, system_identifier
from shipshape_pgbackrest.unattended import Busy, Failure
from shipshape_pgbackrest.watch import close_the_gap, watch

BUSY = 75  # EX_TEMPFAIL: the time was wrong, not the run


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="shipshape-pgbackrest", description="This host's PostgreSQL as it was at any moment of the last days."
    )
    parser.add_argument("--configuration", type=Path, default=Path("/etc/shipshape/pgbackrest"), help=argparse.SUPPRESS)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    command = commands.add_parser("run", help="back up, and read it back")
    command.add_argument(
        "type",
        nargs="?",
        default="diff",
        choices=["full", "diff"],
        help="default: diff, what differs from the last full one",
    )
    command.add_argument("--scheduled", action="store_true", help="wait for the configured jitter first")
    command = commands.add_parser("list", help="the backups there are, and the moments that can be restored")
    command.add_argument("--json", action="store_true")
    commands.add_parser(
        "watch", help="see whether PostgreSQL's log reaches the repository, and tell the webhook if not"
    )
    command = commands.add_parser("restore", help="the server as it was, into a cluster beside the live one")
    command.add_argument("--to", default="latest", help="latest (default), or a time such as '2026-01-31 02:00 UTC'")
    command.add_argument("--name", default="restored", help="name of the new cluster (default: restored)")
    command.add_argument("--json", action="store_true")
    command = commands.add_parser("promote", help="a restored cluster in the live one's place, which is kept")
    command.add_argument("name", nargs="?", default="restored")
    command.add_argument("--json", action="store_true")
    command = commands.add_parser("drop", help="remove a restored cluster")
    command.add_argument("name", nargs="?", default="restored")
    command = commands.add_parser("rebuild", help="a lost droplet's server in the place of a bare one's; site.yml does")
    command.add_argument("--to", default="latest", help="latest (default), or a time")
    commands.add_parser("drill", help="rehearse: restore into a cluster that is thrown away, compare, report")
    commands.add_parser("check", help="every file of the repository, and that the log arrives there")
    command = commands.add_parser("open", help="see that the repository opens; make it when there is none")
    command.add_argument(
        "--if-changed", action="store_true", help="only when it, or the cluster, is another than last time"
    )
    commands.add_parser(
        "upgrade", help="the repository goes on with a cluster that was moved to another version; back that up in full"
    )
    return parser.parse_args(arguments)


def show_list(settings: Settings, as_json: bool) -> None:
    backups = info()["backup"]
    rows = [
        {"label": b["label"], "type": b["type"], "taken": said(stop_time(b)), "bytes": b["info"]["size"]}
        for b in backups
    ]
    until_file = settings.state / "archived-until"
    until = until_file.read_text(encoding="utf-8").strip() if until_file.exists() else None
    if as_json:
        print(json.dumps({"backups": rows, "archived_until": until}))
        return
    for row in rows:
        print(f"{row['taken']}  {row['type']:4}  {row['label']}  {row['bytes']} bytes")
    if rows:
        print(f"any moment from {rows[0]['taken']} on can be restored")


def opened(settings: Settings) -> tuple[Path, str]:
    """(the file that says what was opened last, what it says of the repository and the cluster as they are)."""
    return settings.state / "opened", settings.fingerprint(system_identifier(settings))


def note(mark: Path, fingerprint: str) -> None:
    mark.touch(mode=0o600)
    mark.write_text(fingerprint, encoding="utf-8")


def upgrade(settings: Settings) -> int:
    """A cluster of another version is another one to pgBackRest, and needs a backup of its own. On purpose alone: one
    whose directory was made anew by accident must not take the repository over."""
    if not info().get("db"):
        return 0  # never opened: `open` makes it, with this cluster
    if "already up to date" not in pgbackrest("stanza-upgrade"):
        pgbackrest("check")
        print(f"the repository goes on with PostgreSQL {settings.version}; the backups of before stay in it")
    note(*opened(settings))
    stanza = info()
    this = (settings.version, system_identifier(settings))
    ours = [known["id"] for known in stanza["db"] if (known["version"], str(known["system-id"])) == this]
    last = newest(stanza)
    return 0 if last and last["database"]["id"] in ours else run(settings, "full", scheduled=False)


def open_repository(settings: Settings, if_changed: bool) -> None:
    mark, fingerprint = opened(settings)
    if if_changed and mark.exists() and mark.read_text(encoding="utf-8") == fingerprint:
        return
    first = rebuild.open_stanza(settings)
    note(mark, fingerprint)
    print("stanza is there, and a segment of the log has arrived" + ("; a backup begins now" if first else ""))
    if first:
        # The log is worth nothing without a backup to apply it to. A large cluster's takes hours: nobody waits for it.
        unit = ["systemd-run", "--quiet", "--collect", "--unit=shipshape-pgbackrest-first", "--nice=10"]
        subprocess.run([*unit, "/usr/local/sbin/shipshape-pgbackrest", "run", "full"], check=True)


def dispatch(settings: Settings, options: argparse.Namespace) -> int:
    if options.command in ("run", "watch", "drill") and rebuild.under_way(settings):
        raise Busy("this droplet is just getting back what it had (site.yml -e restore_from); nothing was done")
    if options.command == "run":
        code = run(settings, options.type, options.scheduled)
        if code == 0:
            close_the_gap(settings)
        return code
    if options.command == "watch":
        return watch(settings)
    if options.command == "upgrade":
        return upgrade(settings)
    if options.command == "drill":
        return drill(settings)
    if options.command == "list":
        show_list(settings, options.json)
    elif options.command == "restore":
        with lock(settings, "restore"):
            result = restore.restore(settings, options.to, options.name)
        print(json.dumps(result) if options.json else restore.words(result, settings))
    elif options.command == "promote":
        with lock(settings, "restore"):
            result = promote.promote(settings, options.name)
        print(json.dumps(result) if options.json else promote.words(result))
        promote.back_up_anew()
    elif options.command == "rebuild":
        with lock(settings, "restore"):
            print(rebuild.words(rebuild.rebuild(settings, options.to)))
    elif options.command == "drop":
        with lock(settings, "restore"):
            Side(settings, options.name).remove()
    elif options.command == "check":
        pgbackrest("check")
        print(pgbackrest("verify").strip())
    elif options.command == "open":
        open_repository(settings, options.if_changed)
    return 0


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    settings = None
    os.umask(0o077)
    try:
        settings = Settings(options.configuration)
        return dispatch(settings, options)
    except OSError as error:  # a full disk, mostly
        print(f"shipshape-pgbackrest: this host does not let it work, see df -h: {error}", file=sys.stderr)
        return 1
    except Failure as failure:
        print(f"shipshape-pgbackrest: {settings.scrub(str(failure)) if settings else failure}", file=sys.stderr)
        return BUSY if isinstance(failure, Busy) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
