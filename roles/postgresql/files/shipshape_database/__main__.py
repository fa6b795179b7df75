"""The command line: sizes, slow, bloat, vacuum, reindex, partitions, replicas."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import List

from shipshape_database import jobs
from shipshape_database.partitions import partitions
from shipshape_database.replicas import replicas
from shipshape_database.server import Failure


def parse(arguments: List[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="shipshape-database", description="Looks after the databases of this host.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, words in (
        ("sizes", "databases and their largest tables"),
        ("slow", "the queries that took most of the time"),
        ("bloat", "what tables and indexes could give back"),
    ):
        command = commands.add_parser(name, help=words)
        command.add_argument("--database", default="", help="this one alone (default: all)")
        command.add_argument("--limit", type=int, default=20, help="lines of each table (default: 20)")
    for name, words in (
        ("vacuum", "VACUUM (ANALYZE) of a database, or of these tables"),
        ("reindex", "REINDEX CONCURRENTLY of these tables"),
    ):
        command = commands.add_parser(name, help=words)
        command.add_argument("--database", default="", help="this one alone (default for vacuum: all)")
        command.add_argument("tables", nargs="*", metavar="TABLE")
    command = commands.add_parser("partitions", help="make the declared partitions of the coming months, drop old ones")
    command.add_argument(
        "--configuration", type=Path, default=Path("/etc/shipshape/postgresql/partitions.json"), help=argparse.SUPPRESS
    )
    command = commands.add_parser("replicas", help="see whether the replicas follow, and tell the webhook if not")
    command.add_argument(
        "--configuration", type=Path, default=Path("/etc/shipshape/postgresql/replicas.json"), help=argparse.SUPPRESS
    )
    command.add_argument("--state", type=Path, default=Path("/var/lib/shipshape/replicas.json"), help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: List[str]) -> int:
    options = parse(arguments)
    try:
        if options.command in ("partitions", "replicas"):
            said, wrong = (
                partitions(options.configuration)
                if options.command == "partitions"
                else replicas(options.configuration, options.state)
            )
            for line in said:
                print(line)
            for line in wrong:
                print(line, file=sys.stderr)
            return 1 if wrong else 0
        job = getattr(jobs, options.command)
        last = options.tables if options.command in ("vacuum", "reindex") else options.limit
        for line in job(options.database, last):
            print(line, flush=True)
    except (Failure, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
