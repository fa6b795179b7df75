"""Make Ansible's own loader know the collection, so that templates in tests find its filters."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible.plugins.loader import init_plugin_loader

# Before any test module imports ansible_collections: the loader must be the one that imports it first.
init_plugin_loader([str(Path(__file__).parents[2] / "collections")])


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """Programs that tests call in this very process set their own, which the next test is not to have."""
    before = os.umask(0o022)
    yield
    os.umask(before)
