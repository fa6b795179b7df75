"""`python -m tests.lab VERB`: everything the Makefile, Molecule and the site tests ask of the lab."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.lab import droplet, image, local, repository, services, settings
from tests.lab.engine import LabError


def parser() -> argparse.ArgumentParser:
    main = argparse.ArgumentParser(prog="python -m tests.lab", description=__doc__)
    verbs = main.add_subparsers(dest="verb", required=True, metavar="VERB")

    build = verbs.add_parser("image", help="build a droplet image unless it is there")
    build.add_argument("image", nargs="*", default=[settings.DEFAULT_RELEASE], help=", ".join(image.RELEASES))

    verbs.add_parser("services", help="start the ACME authority, the S3 store and the git server")

    begin = verbs.add_parser("droplet", help="start a bare droplet and print its address")
    begin.add_argument("name")
    begin.add_argument("--image", default=settings.DEFAULT_RELEASE)
    begin.add_argument(
        "--address", default="", help=f"below 128 in {settings.SUBNET}; without it Docker picks one above"
    )
    begin.add_argument("--alias", action="append", default=[], help="a domain that leads to this droplet; repeatable")
    begin.add_argument("--no-package-cache", action="store_true", help="download every package anew")

    push = verbs.add_parser("publish", help="serve a directory as a git repository and print the commit")
    push.add_argument("directory", type=Path)
    push.add_argument("repository", help="NAME is served as https://git.test/NAME.git")

    for verb, help_text in (("reboot", "restart a droplet and wait for it"), ("remove", "remove a droplet")):
        verbs.add_parser(verb, help=help_text).add_argument("name")

    verbs.add_parser("up", help="bring the example apps of inventories/local into production on a droplet of the lab")
    end = verbs.add_parser("down", help="remove everything the lab has made")
    end.add_argument("--keep-images", action="store_true", help="the next `up` starts sooner")
    return main


def run(arguments: argparse.Namespace) -> None:
    match arguments.verb:
        case "image":
            for wanted in arguments.image:
                print(image.ensure_image(wanted))
        case "services":
            services.ensure_services()
        case "droplet":
            cache = not arguments.no_package_cache
            print(droplet.start(arguments.name, arguments.image, arguments.address, arguments.alias, cache))
        case "publish":
            print(repository.publish(arguments.directory, arguments.repository))
        case "up":
            local.up()
        case "down":
            local.down(keep_images=arguments.keep_images)
        case "reboot":
            droplet.reboot(arguments.name)
        case "remove":
            droplet.remove(arguments.name)


def main() -> int:
    try:
        run(parser().parse_args())
    except LabError as error:
        print(f"lab | {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
