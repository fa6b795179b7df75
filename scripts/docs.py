#!/usr/bin/env python3
"""Write docs/ from the argument specs of the roles; `--check` fails when a page is stale or a default has drifted."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT / "collections"))
from ansible_collections.shipshape.droplet.plugins.plugin_utils import hooks, reference

REFERENCE = PROJECT / "docs" / "reference.md"
INVENTORY = PROJECT / "docs" / "inventory.md"
INVENTORY_HEAD = """# What an inventory may say

Written by `make docs` from the declarations that the validation itself uses; a stale page fails the lint. Two places
make an inventory: `hosts.yml` with the groups `proxy`, `app`, `database` (a droplet may be in all), and
`group_vars/all/` with what stands below, secrets in a vault file. `inventories/production` is a commented template.

Every key is checked before any host is contacted. Variables of a role (`nginx_…`, `postgresql_…`, see
[reference.md](reference.md)) may stand here, too. `NAME` is the app's own name: letters, digits and hyphens.

"""
HARDENING = PROJECT / "docs" / "hardening.md"
HARDENING_HEAD = """# Hardening: every setting by its name

Written by `make docs` from `roles/hardening/vars/main/`; a stale page fails the lint. Each setting can be switched
off by its name, for all hosts or for one, and those that are off by default can be switched on:

```yaml
hardening_skip: [session_timeout, ssh_post_quantum]
hardening_also: [hidepid]
```

A name that does not exist is refused before any host is contacted. A file of ours goes with its setting; in place of
one that belongs to a package comes back what was there before; kernel settings stay until the next boot. A rule of CIS
is one of the benchmark for Ubuntu 22.04 in OpenSCAP's numbering; `make audit` asks for them, and
`tests/audit/waivers.yml` says which are not met, and why. A rule of ANSSI is a recommendation of ANSSI-BP-028, version
2, as the SCAP Security Guide assigns it; a setting does a part of what the recommendation asks for, not always all.
"""
#: The order in which a site run meets them.
ROLES = (
    *("hardening", "docker", "postgresql", "pgbouncer", "redis", "nginx", "traefik", "certbot", "app", "backup"),
    "pgbackrest",
)
HEAD = """# Reference: the variables of every role

Written by `make docs` from the argument spec of each role; a change by hand is undone, and a stale page fails the lint.
What an app may say (`apps`) and the globals stand in [inventory.md](inventory.md); most operators need nothing else.
Variables marked *wired* are derived from `apps` by the playbooks; set them only when you use a role by itself.
"""


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def wired() -> set[str]:
    return set(load(PROJECT / "playbooks" / "vars" / "wiring.yml"))


def defaults(role: str) -> dict[str, Any]:
    folder = PROJECT / "roles" / role / "defaults"
    return {name: value for path in sorted(folder.rglob("*.yml")) for name, value in (load(path) or {}).items()}


def sentence(description: Any) -> str:
    text = " ".join(description) if isinstance(description, list) else str(description or "")
    text = re.sub(r"[CVIB]\(([^)]*)\)", r"`\1`", text)
    text = re.sub(r"[OM]\(([^)]*)\)", r"`\1`", text)
    return re.sub(r"\s+", " ", text).strip().replace("|", "\\|")


def kind(option: dict[str, Any]) -> str:
    name = str(option.get("type", "any"))
    if name == "list" and "elements" in option:
        name = f"list of {option['elements']}"
    return name


def shown(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000).strip().removesuffix("...").strip()
    return f"`{text}`".replace("|", "\\|")


def rows(options: dict[str, Any], marked: set[str], prefix: str = "") -> list[str]:
    lines = []
    for name, option in options.items():
        words = sentence(option.get("description"))
        if option.get("choices"):
            words += f" One of {', '.join(f'`{choice}`' for choice in option['choices'])}."
        if option.get("no_log"):
            words += " Secret."
        if name in marked and not prefix:
            words += " *Wired.*"
        default = "**required**" if option.get("required") else shown(option["default"]) if "default" in option else ""
        lines.append(f"| `{prefix}{name}` | {kind(option)} | {default} | {words} |")
        if option.get("options"):
            inner = f"{prefix}{name}[]." if option.get("type") == "list" else f"{prefix}{name}."
            lines += rows(option["options"], marked, inner)
    return lines


def page() -> str:
    marked = wired()
    parts = [HEAD]
    for role in ROLES:
        spec = load(PROJECT / "roles" / role / "meta" / "argument_specs.yml")["argument_specs"]["main"]
        parts.append(f"\n## {role}\n\n{sentence(spec['short_description'])}. {sentence(spec.get('description'))}\n")
        parts.append("\n| variable | type | default | what it does |\n|---|---|---|---|")
        parts.append("\n" + "\n".join(rows(spec.get("options", {}), marked)) + "\n")
    return "".join(parts)


def hardening_page() -> str:
    """The named settings of the hardening role, a table for each file they stand in."""
    parts = [HARDENING_HEAD]
    for path in sorted((PROJECT / "roles" / "hardening" / "vars" / "main").glob("*.yml")):
        settings = load(path).get(f"__hardening_settings_{path.stem}")
        if settings:
            parts.append(
                f"\n## {path.stem}\n\n| name | what it does | what it may break | rules |\n|---|---|---|---|\n"
            )
            parts += [setting_row(name, setting) for name, setting in settings.items()]
    return "".join(parts)


def setting_row(name: str, setting: dict[str, Any]) -> str:
    off = "" if setting.get("default", True) else " *Off by default.*"
    only = " *Where the host has a kernel of its own.*" if "has_kernel" in str(setting.get("needs", "")) else ""
    breaks = sentence(setting.get("breaks")) or "Nothing that we know of."
    return f"| `{name}` | {sentence(setting['summary'])}.{off}{only} | {breaks} | {', '.join(setting['rules'])} |\n"


def drifted(role: str) -> list[str]:
    """Where the spec and defaults/main.yml of a role disagree, values included."""
    options = load(PROJECT / "roles" / role / "meta" / "argument_specs.yml")["argument_specs"]["main"].get(
        "options", {}
    )
    actual = {name: value for name, value in defaults(role).items() if "_export_" not in name}
    problems = [f"roles/{role}: {name} has a default and no argument spec" for name in actual if name not in options]
    for name, option in options.items():
        if name in actual and "default" not in option and not option.get("required"):
            problems.append(f"roles/{role}: {name} has the default {actual[name]!r}, its argument spec names none")
        if "default" in option and name not in actual:
            problems.append(f"roles/{role}: the argument spec gives {name} a default, defaults/main.yml does not")
        if "default" in option and name in actual and option["default"] != actual[name]:
            problems.append(
                f"roles/{role}: {name} is {actual[name]!r} in defaults and {option['default']!r} in its argument spec"
            )
    return problems


def main() -> int:
    problems = [problem for role in ROLES for problem in drifted(role)]
    pages = {
        REFERENCE: page(),
        INVENTORY: INVENTORY_HEAD + reference.table() + hooks.page(),
        HARDENING: hardening_page(),
    }
    for path, text in pages.items():
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            problems.append(f"{path.relative_to(PROJECT)} is stale: run 'make docs' and commit it")
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
