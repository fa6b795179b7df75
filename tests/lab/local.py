"""`make up`: the example apps in production on a droplet of this machine; and `make down`, after which nothing is left."""

from __future__ import annotations


def up() -> None:
    raise NotImplementedError


def down(*, keep_images: bool) -> None:
    raise NotImplementedError
