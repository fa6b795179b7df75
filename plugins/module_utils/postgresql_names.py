"""Names and texts as SQL takes them, whatever is in them."""

from __future__ import annotations


def quote_name(name: str) -> str:
    return '"{}"'.format(name.replace('"', '""'))


def quote_text(text: str) -> str:
    """A literal whatever standard_conforming_strings says."""
    return "E'{}'".format(text.replace("\\", "\\\\").replace("'", "\\'"))
