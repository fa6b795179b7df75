"""Variables that carry a role's prefix, compared with the roles' argument specs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .fields import GLOBALS, OPERATOR_VARIABLES, WIRED
from .problems import Path, Problem, Unresolved, describe, listing, meant, unknown_key
from .role_values import check_bounds

Spec = Mapping[str, Any]
# For each role the options of its argument specs.
Roles = Mapping[str, Mapping[str, Spec]]

_BOOLEANS = {"yes", "no", "true", "false", "on", "off", "1", "0", "y", "n", "t", "f"}
_WANTED = {
    "str": "a text",
    "path": "a path",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "list": "a list",
    "dict": "a dictionary",
}


def role_of(name: str, roles: Roles) -> str:
    """The role whose prefix a variable carries, or nothing."""
    return next((role for role in sorted(roles, key=len, reverse=True) if name.startswith(f"{role}_")), "")


def relevant(name: str, roles: Roles) -> bool:
    """Whether the validation reads this variable's value."""
    return name in GLOBALS or bool(role_of(name, roles))


def mistyped_global(name: str) -> str:
    """The global that was probably meant by this name, or nothing."""
    if name in GLOBALS or name in OPERATOR_VARIABLES or name.startswith(("ansible_", "vault_", "_")):
        return ""
    return meant(name, GLOBALS, 0.8)


def check_names(names: Sequence[str], roles: Roles) -> Iterator[Problem]:
    """Variables that nothing reads although their names say that something should."""
    for name in names:
        role = role_of(name, roles)
        if name in GLOBALS or name in OPERATOR_VARIABLES or name.startswith(("ansible_", "vault_", "_")):
            continue
        if name in WIRED or (role and name.startswith(f"{role}_export_")):
            instead = WIRED.get(name, "")
            wanted = f"`{instead}`, from which it is filled" if instead else "nothing: Shipshape sets it by itself"
            yield Problem((name,), "a variable that is derived, so that this value would not be read", wanted)
        elif role:
            if name not in roles[role]:
                options = [
                    option for option in roles[role] if option not in WIRED and not option.startswith(f"{role}_export_")
                ]
                guess = _meant(name, options, role)
                known = f"a variable of the role, or one without the prefix {role}_; the role has: {listing(options)}"
                wanted = f"did you mean `{guess}`?" if guess else known
                yield Problem((name,), "a variable that is not known", wanted)
        elif guess := mistyped_global(name):
            wanted = f"did you mean `{guess}`? If it is a variable of your own, give it a name less like that"
            yield Problem((name,), "a variable that is not known", wanted)


def _meant(name: str, options: Sequence[str], role: str) -> str:
    """The role's variable that was probably meant; the prefix that all share must not speak for it."""
    guess = meant(name.removeprefix(f"{role}_"), [option.removeprefix(f"{role}_") for option in options])
    return f"{role}_{guess}" if guess else ""


def check_values(variables: Mapping[str, Any], roles: Roles) -> Iterator[Problem]:
    """Values of role variables that their argument specs do not allow."""
    for name, value in variables.items():
        role = role_of(name, roles)
        if role and name in roles[role] and name not in WIRED:
            problems = list(_check(roles[role][name], value, (name,)))
            yield from problems or check_bounds(name, value)


def _check(spec: Spec, value: Any, path: Path, secret: bool = False) -> Iterator[Problem]:
    kind = str(spec.get("type", "str"))
    secret = secret or bool(spec.get("no_log", False))
    if isinstance(value, Unresolved):
        yield Problem(path, value.reason, value.wanted)
        return
    if value is None or not _fits(kind, value):
        wanted = _WANTED.get(kind, kind)
        if "choices" in spec:
            wanted += f", one of: {_choices(spec)}"
        yield Problem(path, describe(value, secret), wanted)
        return
    choices = spec.get("choices")
    if kind == "list":
        element = {**spec, "type": spec.get("elements", "raw")}
        for index, entry in enumerate(value):
            yield from _check(element, entry, (*path, index), secret)
    elif choices is not None and str(value) not in {str(choice) for choice in choices}:
        guess = meant(str(value), [str(choice) for choice in choices])
        question = f"did you mean `{guess}`? " if guess else ""
        yield Problem(path, describe(value, secret), f"{question}one of: {_choices(spec)}")
    elif kind == "dict" and isinstance(options := spec.get("options"), Mapping):
        for key, entry in value.items():
            if key in options:
                yield from _check(options[key], entry, (*path, key), secret)
            else:
                fault = unknown_key(str(key), options)
                yield Problem((*path, str(key)), fault.found, fault.wanted)
        mistyped = {meant(str(key), options) for key in value if key not in options}
        for key, option in options.items():
            if option.get("required") and key not in value and key not in mistyped:
                yield Problem((*path, key), "nothing", _WANTED.get(str(option.get("type", "str")), "a value"))


def _choices(spec: Spec) -> str:
    return ", ".join(str(choice) for choice in spec["choices"])


def _fits(kind: str, value: Any) -> bool:
    if kind == "bool":
        return isinstance(value, bool) or str(value).lower() in _BOOLEANS
    if kind in {"int", "float"}:
        try:
            float(value) if kind == "float" else int(str(value))
        except (TypeError, ValueError):
            return False
        return not isinstance(value, bool)
    if kind == "list":
        return isinstance(value, Sequence) and not isinstance(value, str)
    if kind == "dict":
        return isinstance(value, Mapping)
    if kind in {"str", "path"}:
        return isinstance(value, (str, int, float))
    return True
