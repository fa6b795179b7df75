"""Droplet images: a bare system that boots systemd and lets root in by key, as a cloud provider hands it over."""

from __future__ import annotations

import hashlib
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.lab import settings
from tests.lab.engine import LabError, docker, exclusive, image_label, say, stage
from tests.lab.host import ensure_program, privileged

BUILD = Path(__file__).parent / "droplet-image"
PACKAGES = (BUILD / "packages.txt").read_text(encoding="utf-8").split()
DIGEST = f"{settings.LABEL}.digest"
BOOTSTRAP = (
    "--variant=minbase",
    f"--include={','.join(PACKAGES)}",
    "--customize-hook=rm -rf $1/var/lib/apt/lists/* $1/var/cache/apt/archives/*.deb",
)


# One /usr for /bin, /sbin and /lib, as the installers have it. Debian 11's packages alone leave them apart.
MERGED_USR = "--setup-hook=cd $1 && for d in bin sbin lib lib64; do mkdir -p usr/$d && ln -s usr/$d $d; done"


@dataclass(frozen=True)
class Release:
    """Where an image starts from: a Debian suite built here, or an image pulled from a registry."""

    suite: str = ""
    hooks: tuple[str, ...] = ()
    pulled: str = ""
    dressed_as: str = ""


RELEASES = {
    "debian-11": Release(suite="bullseye", hooks=(MERGED_USR,)),
    "debian-12": Release(suite="bookworm"),
    "debian-13": Release(suite="trixie"),
    # Debian 12 with Ubuntu's os-release and lsb-release, for the branches that only Ubuntu takes where no Ubuntu
    # image can be had. Its apt sources stay Debian's.
    "debian-12-as-ubuntu-22.04": Release(suite="bookworm", dressed_as="ubuntu-22.04"),
    "ubuntu-22.04": Release(pulled="ubuntu:22.04"),
    "ubuntu-24.04": Release(pulled="ubuntu:24.04"),
}


def name_of(release: str) -> str:
    return f"{settings.DROPLET_IMAGE}:{release}"


def release_of(image: str) -> str:
    """The release an image is named after: both `debian-12` and `shipshape-droplet:debian-12` are understood."""
    release = image.removeprefix(f"{settings.DROPLET_IMAGE}:")
    if release not in RELEASES:
        raise LabError(f"no droplet image is called {image!r}; there are: {', '.join(RELEASES)}")
    return release


def ensure_image(image: str) -> str:
    """Build the image unless one of the same definition is there; return its full name."""
    release = release_of(image)
    name = name_of(release)
    digest = _digest(release)
    with exclusive("image"):
        if image_label(name, DIGEST) != digest:
            _build(name, RELEASES[release], digest)
    return name


def _build(name: str, source: Release, digest: str) -> None:
    with stage(f"droplet image {name}"):
        base = _pull(source.pulled) if source.pulled else _bootstrap(source)
        arguments = {
            "BASE": base,
            "PACKAGES": " ".join(PACKAGES),
            "DRESSED_AS": source.dressed_as,
        }
        build_arguments = [word for key, value in arguments.items() for word in ("--build-arg", f"{key}={value}")]
        labels = ("--label", settings.LABEL, "--label", f"{DIGEST}={digest}")
        docker("build", "--tag", name, *labels, *build_arguments, str(BUILD))


def _digest(release: str) -> str:
    """Changes whenever anything that goes into the image does."""
    files = sorted(path for path in BUILD.rglob("*") if path.is_file())
    return _short_digest(
        RELEASES[release],
        BOOTSTRAP,
        *((str(path.relative_to(BUILD)), os.access(path, os.X_OK), path.read_bytes()) for path in files),
    )


def _short_digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _pull(reference: str) -> str:
    try:
        docker("pull", reference)
    except LabError as error:
        built_here = [name for name, source in RELEASES.items() if source.suite]
        raise LabError(
            f"{error}\nWithout a registry, take one of the images that are built here: {', '.join(built_here)}"
        ) from error
    return reference


def _bootstrap(source: Release) -> str:
    """A base image from the distribution's own packages: needs its mirror, and no image registry."""
    name = f"{settings.BASE_IMAGE}:{source.suite}"
    digest = _short_digest(BOOTSTRAP, source.hooks)
    if image_label(name, DIGEST) == digest:
        return name
    ensure_program("mmdebstrap", packages=("mmdebstrap", "debian-archive-keyring"))
    say(f"building {source.suite} from packages")
    command = privileged(["mmdebstrap", "--quiet", *BOOTSTRAP, *source.hooks, source.suite, "-"])
    changes = ("--change", f"LABEL {settings.LABEL}=", "--change", f"LABEL {DIGEST}={digest}")
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as bootstrap:
        imported = subprocess.run(
            ["docker", "import", *changes, "-", name], stdin=bootstrap.stdout, capture_output=True, check=False
        )
    if bootstrap.returncode != 0 or imported.returncode != 0:
        docker("image", "rm", "--force", name, check=False)
        words = imported.stderr.decode(errors="replace").strip()
        raise LabError(
            f"{source.suite} could not be built from packages (mmdebstrap ended with {bootstrap.returncode}). {words}"
        )
    return name


def remove_images() -> None:
    for repository in (settings.SERVICES, settings.REGISTRY, settings.DROPLET_IMAGE, settings.BASE_IMAGE):
        listed = docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", repository).split()
        if listed:
            docker("image", "rm", "--force", *listed)
    # Those that a newer definition has taken the name from.
    docker("image", "prune", "--force", f"--filter=label={settings.LABEL}")
