"""Make Ansible's own loader know the collection, so that templates in tests find its filters."""

from __future__ import annotations

from pathlib import Path

from ansible.plugins.loader import init_plugin_loader

# Before any test module imports ansible_collections: the loader must be the one that imports it first.
init_plugin_loader([str(Path(__file__).parents[2] / "collections")])
