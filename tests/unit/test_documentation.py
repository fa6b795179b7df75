"""What the plugins say of themselves can be read, and agrees with what they accept."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

PROJECT = Path(__file__).parents[2]
MODULES = sorted((PROJECT / "plugins" / "modules").glob("*.py"))


def constant(path: Path, name: str) -> Any:
    """A string constant of a module, parsed as YAML."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            return yaml.safe_load(ast.literal_eval(node.value))
    return None


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_documents_its_options_examples_and_results(path: Path) -> None:
    documentation = constant(path, "DOCUMENTATION")
    assert documentation["module"] == path.stem
    assert documentation["short_description"]
    assert constant(path, "EXAMPLES")
    assert constant(path, "RETURN") is not None
    for name, option in (documentation.get("options") or {}).items():
        assert option.get("description"), f"{name} has no description"
        assert option.get("type"), f"{name} has no type"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_that_writes_does_not_leave_it_to_the_logins_umask_who_may_read(path: Path) -> None:
    """Modules that write nothing but what has a mode of its own are named here."""
    reads = {"app_info", "drain", "droplet_health", "droplet_report", "droplet_state", "login", "pgbouncer_logins"}
    reads |= {"validate_inventory"}
    text = path.read_text(encoding="utf-8")
    sets_it = "umask.ordinary()" in text or re.search(r'^    execute\(module, work, "\w+"\)$', text, re.MULTILINE)
    assert bool(sets_it) or path.stem in reads | {"verify"}
