"""`python -m tests.lab VERB`: everything the Makefile, Molecule and the site tests ask of the lab."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.lab import dns, droplet, image, local, registry, repository, scenarios, services, settings
from tests.lab.engine import LabError


def parser() -> argparse.ArgumentParser:
    main = argparse.ArgumentParser(prog="python -m tests.lab", description=__doc__)
    verbs = main.add_subparsers(required=True, metavar="VERB")

    verb = verbs.add_parser("image", help="build droplet images unless they are there")
    verb.add_argument("images", nargs="*", default=[settings.DEFAULT_RELEASE], help=", ".join(image.RELEASES))
    verb.set_defaults(run=lambda given: [print(image.ensure_image(name)) for name in given.images])

    verb = verbs.add_parser("services", help="start the ACME authority, the S3 store and the git server")
    verb.set_defaults(run=lambda given: services.ensure_services())

    verb = verbs.add_parser("registry", help="start the container registry with its images")
    verb.add_argument(
        "images", nargs="*", help="others to push: TAG=VERSION, or TAG=VERSION:WAY; crash and sick are ways"
    )
    verb.set_defaults(run=lambda given: registry.ensure_registry(given.images))

    verb = verbs.add_parser("dns", help="start DigitalOcean's API for DNS with its name server, and an authority")
    verb.set_defaults(run=lambda given: dns.ensure_dns())

    verb = verbs.add_parser("droplet", help="start a bare droplet and print its address")
    verb.add_argument("name")
    verb.add_argument("--image", default=settings.DEFAULT_RELEASE)
    verb.add_argument("--address", default="", help=f"below 128 in {settings.SUBNET}; without it, a free one above")
    verb.add_argument("--alias", action="append", default=[], help="a domain that leads to this droplet; repeatable")
    verb.add_argument("--no-package-cache", action="store_true", help="download every package anew")
    verb.add_argument("--umask", default="", help="what a login over SSH gets, as a hardened host has it (027)")
    verb.set_defaults(run=_droplet)

    verb = verbs.add_parser("reboot", help="restart a droplet and wait for it")
    verb.add_argument("name")
    verb.set_defaults(run=lambda given: droplet.reboot(given.name))

    verb = verbs.add_parser("remove", help="remove a droplet")
    verb.add_argument("name")
    verb.set_defaults(run=lambda given: droplet.remove(given.name))

    verb = verbs.add_parser("publish", help="serve a directory as a git repository and print the commit")
    verb.add_argument("directory", type=Path)
    verb.add_argument("repository", help="NAME is served as https://git.test/NAME.git")
    verb.set_defaults(run=lambda given: print(repository.publish(given.directory, given.repository)))

    verb = verbs.add_parser("scenarios", help="run Molecule scenarios side by side and count what passed")
    verb.add_argument("names", nargs="+")
    verb.add_argument("--image", default=settings.DEFAULT_RELEASE)
    verb.add_argument("--jobs", type=int, default=3)
    verb.set_defaults(run=lambda given: scenarios.run(given.names, given.image, given.jobs))

    verb = verbs.add_parser("up", help="bring the example apps into production on a droplet of this machine")
    verb.set_defaults(run=lambda given: local.up())

    verb = verbs.add_parser("down", help="remove everything the lab has made")
    verb.add_argument("--keep-images", action="store_true", help="the next `up` starts sooner")
    verb.set_defaults(run=lambda given: local.down(keep_images=given.keep_images))
    return main


def _droplet(given: argparse.Namespace) -> None:
    cache = not given.no_package_cache
    address = droplet.start(given.name, given.image, given.address, given.alias, package_cache=cache)
    if given.umask:
        droplet.set_umask(given.name, given.umask)
    print(address)


def main() -> int:
    given = parser().parse_args()
    try:
        given.run(given)
    except LabError as error:
        print(f"lab | {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
