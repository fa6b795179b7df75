"""The command line of the backup: each command is one of its own words (`shipshape-backup --help`)."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from shipshape_backup import manifest
from shipshape_backup.drill import drill
from shipshape_backup.rebuild import rebuild, under_way
from shipshape_backup.restore import choose, restore_database, restore_files, verified, what
from shipshape_backup.run import run
from shipshape_backup.store import Restic, Settings
from shipshape_backup.unattended import Busy, Failure, Waited, cry

BUSY = 75  # EX_TEMPFAIL: the time was wrong, not the run
NAMES = {"run": "Backup", "drill": "The restore drill"}


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="shipshape-backup", description="Backups of this host's databases and files.")
    parser.add_argument("--configuration", type=Path, default=Path("/etc/shipshape/backup"), help=argparse.SUPPRESS)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    command = commands.add_parser("run", help="back up everything that is declared, and read it back")
    command.add_argument("--scheduled", action="store_true", help="wait for the configured jitter, and for a drill")
    command = commands.add_parser("list", help="the backups there are")
    command.add_argument("--json", action="store_true")
    command = commands.add_parser("restore-database", help="a database into a new one beside it")
    command.add_argument("name")
    command.add_argument(
        "--snapshot", default="latest", help="latest (default), an id, or a time: the last one before it"
    )
    command.add_argument("--into", default="", help="name of the new database (default: NAME_restored)")
    command.add_argument("--json", action="store_true")
    command = commands.add_parser("restore-files", help="the paths into an empty directory")
    command.add_argument(
        "--snapshot", default="latest", help="latest (default), an id, or a time: the last one before it"
    )
    command.add_argument("--target", default="", help="directory (default: below the state directory)")
    command.add_argument("--path", action="append", default=[], help="only this path; may be repeated")
    command.add_argument("--json", action="store_true")
    command = commands.add_parser("rebuild", help="all of it at its own places, on a bare droplet; site.yml does")
    command.add_argument("what", choices=["files", "databases"])
    command.add_argument("--from", dest="wanted", default="latest", help="latest (default), or a time")
    command = commands.add_parser("check", help="the repository's structure, and all data with --read-data")
    command.add_argument("--read-data", action="store_true")
    command = commands.add_parser("open", help="see that the repository opens; make it when there is none")
    command.add_argument(
        "--if-changed", action="store_true", help="only when the configuration is another than last time"
    )
    command = commands.add_parser(
        "drill", help="rehearse: read the newest backups to their end, compare the files, report"
    )
    command.add_argument("--scheduled", action="store_true", help="wait for a backup that is running")
    command = commands.add_parser("manifest", help="all state that this host has, and where its copy is")
    command.add_argument("--json", action="store_true")
    command = commands.add_parser(
        "remove", help="backups by their ids, such as those of a time when the clock was wrong"
    )
    command.add_argument("snapshot", nargs="+")
    commands.add_parser("unlock", help="remove locks of other processes from the repository")
    return parser.parse_args(arguments)


def show_list(restic: Restic, as_json: bool) -> None:
    snapshots = [{"snapshot": s["id"][:8], "taken": s["time"][:19], "what": what(s)} for s in verified(restic)]
    if as_json:
        print(json.dumps(snapshots))
    for snapshot in [] if as_json else snapshots:
        print(f"{snapshot['taken']}  {snapshot['snapshot']}  {snapshot['what']}")


def show(result: dict[str, Any], as_json: bool, words: str) -> None:
    print(json.dumps(result) if as_json else words.format(**result))


def open_repository(settings: Settings, restic: Restic, if_changed: bool) -> None:
    # Names what was opened without giving away the keys it was opened with.
    mark = settings.configuration / "opened"
    if if_changed and mark.exists() and mark.read_text(encoding="utf-8") == settings.fingerprint():
        return
    # A droplet that gets back what it had is not to begin with an empty repository because the name of it is wrong.
    identity, made = restic.open(make=not under_way(settings))
    mark.touch(mode=0o600)
    mark.write_text(settings.fingerprint(), encoding="utf-8")
    print(f"repository {identity[:8]} {'made' if made else 'opens'}")


def show_manifest(settings: Settings, as_json: bool) -> None:
    rows = manifest.state(settings)
    if as_json:
        print(manifest.text_of(settings, rows), end="")
        return
    widths = [max((len(row[name]) for row in rows), default=0) for name in ("kind", "what")]
    for row in rows:
        print(f"{row['kind']:{widths[0]}}  {row['what']:{widths[1]}}  {row['copy']}")
    missing = manifest.uncovered(rows)
    print(f"{len(missing)} of {len(rows)} have no copy" if missing else "everything has a copy, or is made anew")


def remove(restic: Restic, wanted: list[str]) -> None:
    """Those of Shipshape alone, all of them or none."""
    for identity in wanted:
        if not re.fullmatch("[0-9a-f]{4,64}", identity):
            raise Failure(f"'{identity}' is no id of a backup; shipshape-backup list has them. Nothing was removed")
    snapshots = restic.snapshots()
    found = [choose(snapshots, identity, "this host") for identity in wanted]
    restic.call("forget", *(snapshot["id"] for snapshot in found))
    for snapshot in found:
        print(f"removed {snapshot['time'][:19]}  {snapshot['id'][:8]}  {what(snapshot)}")


def dispatch(settings: Settings, options: argparse.Namespace) -> int:
    restic = Restic(settings)
    if options.command in ("run", "drill") and under_way(settings):
        raise Busy("this droplet is just getting back what it had (site.yml -e restore_from); nothing was done")
    if options.command == "run":
        return run(settings, options.scheduled)
    if options.command == "drill":
        return drill(settings, options.scheduled)
    if options.command == "manifest":
        show_manifest(settings, options.json)
        return 0
    if options.command == "list":
        show_list(restic, options.json)
    elif options.command == "restore-database":
        result = restore_database(restic, options.name, options.snapshot, options.into)
        show(result, options.json, "database {database} as of {taken} (snapshot {snapshot}) is now database {into}: "
             "{tables} tables, {bytes} bytes, in {seconds} s")  # fmt: skip
    elif options.command == "restore-files":
        result = restore_files(restic, options.snapshot, options.target, options.path)
        show(
            result,
            options.json,
            "files as they were at {taken} (snapshot {snapshot}) are now in {target}: {files} files, in {seconds} s",
        )
    elif options.command == "rebuild":
        print("\n".join(rebuild(settings, options.what, options.wanted)))
    elif options.command == "check":
        print(restic.call("check", *(["--read-data"] if options.read_data else [])).strip())
    elif options.command == "open":
        open_repository(settings, restic, options.if_changed)
    elif options.command == "remove":
        remove(restic, options.snapshot)
    elif options.command == "unlock":
        print(restic.call("unlock", "--remove-all").strip())
    return 0


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    settings = None
    os.umask(0o077)
    try:
        settings = Settings(options.configuration)
        return dispatch(settings, options)
    except Waited as waited:
        assert settings
        cry(settings, f"{NAMES[options.command]} of {settings.host} was left out:", [str(waited)])
        return BUSY
    except OSError as error:  # a full disk, mostly
        print(f"shipshape-backup: this host does not let it work, see df -h: {error}", file=sys.stderr)
        return 1
    except Failure as failure:
        print(f"shipshape-backup: {settings.scrub(str(failure)) if settings else failure}", file=sys.stderr)
        return BUSY if isinstance(failure, Busy) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
