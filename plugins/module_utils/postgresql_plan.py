"""From what a server has and what is wanted to the statements between the two. Pure: asks nothing, changes nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Set, Tuple

from ansible_collections.shipshape.droplet.plugins.module_utils import postgresql_readers as readers
from ansible_collections.shipshape.droplet.plugins.module_utils import postgresql_scram as scram
from ansible_collections.shipshape.droplet.plugins.module_utils.postgresql_names import quote_name, quote_text
from ansible_collections.shipshape.droplet.plugins.module_utils.postgresql_replication import SLOTS

DEFAULT_LOCALE = "C.UTF-8"
MAXIMUM_NAME_BYTES = 63
#: What the server says of a role without a limit of connections.
UNLIMITED = -1
OWN_SCHEMAS = ("public", "information_schema")
#: What an application's role must not have. Row-level security holds for it, and so do the grants.
POWERS = {
    "superuser": "NOSUPERUSER",
    "bypassrls": "NOBYPASSRLS",
    "createdb": "NOCREATEDB",
    "createrole": "NOCREATEROLE",
    "replication": "NOREPLICATION",
}

SERVER_STATE = f"""
SELECT json_build_object(
  'roles', (SELECT coalesce(json_object_agg(rolname, json_build_object('verifier', rolpassword, 'login', rolcanlogin,
      'superuser', rolsuper, 'bypassrls', rolbypassrls, 'createdb', rolcreatedb, 'createrole', rolcreaterole,
      'replication', rolreplication, 'limit', rolconnlimit)), '{{}}') FROM pg_authid),
  'databases', (SELECT coalesce(json_object_agg(datname, json_build_object('owner', pg_get_userbyid(datdba),
      'public', has_database_privilege('public', oid, 'CONNECT') OR has_database_privilege('public', oid, 'TEMPORARY'),
      'connect', (SELECT coalesce(json_agg(DISTINCT pg_get_userbyid(grantee)), '[]')
        FROM aclexplode(datacl) WHERE grantee <> 0 AND privilege_type = 'CONNECT'))), '{{}}') FROM pg_database),
  'available', (SELECT coalesce(json_agg(name), '[]') FROM pg_available_extensions),
  'connections', current_setting('max_connections')::int,
  'slots', ({SLOTS}),
  'statements', NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_stat_statements')
    AND current_setting('shared_preload_libraries') LIKE '%pg_stat_statements%')
"""
DATABASE_STATE = """
SELECT json_build_object(
  'extensions', (SELECT coalesce(json_agg(extname), '[]') FROM pg_extension),
  'schemas', (SELECT json_object_agg(nspname, pg_get_userbyid(nspowner)) FROM pg_namespace),
  'unreadable', (%s),
  'comment', (SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = current_database()),
  'filled', (%s),
  'public_schema', (SELECT json_build_object('owner', pg_get_userbyid(nspowner),
      'open', has_schema_privilege('public', oid, 'CREATE')) FROM pg_namespace WHERE nspname = 'public'))
"""
#: Whether somebody has something in a database: tables and the like, functions, types. What the superuser made (for a
#: pool, say) and what extensions brought does not count.
FILLED = " OR ".join(
    f"EXISTS (SELECT FROM {catalogue} AS one JOIN pg_namespace ON pg_namespace.oid = one.{prefix}namespace "
    f"WHERE one.{prefix}owner <> 10 AND nspname !~ '^pg_' AND nspname <> 'information_schema' AND NOT EXISTS "
    f"(SELECT FROM pg_depend WHERE classid = '{catalogue}'::regclass AND objid = one.oid AND deptype = 'e'))"
    for catalogue, prefix in (("pg_class", "rel"), ("pg_proc", "pro"), ("pg_type", "typ"))
)
FILLED = f"SELECT {FILLED} OR EXISTS (SELECT FROM pg_largeobject_metadata)"
#: How the comment begins on a database into which a file was loaded.
LOADED = "Loaded by Shipshape from"
NEW, WAS_LOADED, HAS_OTHER = "new", "loaded", "other"


@dataclass
class Action:
    """One statement. The summary is for people; the SQL may carry a verifier and is never shown."""

    summary: str
    sql: str
    database: str = "postgres"


@dataclass
class State:
    """What is on the server; by default a server fresh from its package."""

    version: int
    roles: Dict[str, Dict[str, Any]] = field(default_factory=dict)
    databases: Dict[str, Dict[str, Any]] = field(default_factory=dict)
    available: Optional[List[str]] = None  # None: nobody could be asked
    connections: Optional[int] = None
    slots: Dict[str, Dict[str, bool]] = field(default_factory=dict)  # of replicas: active, lost
    uncounted: bool = False  # statements are counted, and nobody can read how often and how long
    details: Dict[str, Dict[str, Any]] = field(default_factory=dict)


def name_problem(name: str) -> str:
    """Why a name will not do, '' when it will."""
    if not name or len(name.encode("utf-8")) > MAXIMUM_NAME_BYTES:
        return f"PostgreSQL takes names of 1 to {MAXIMUM_NAME_BYTES} bytes"
    if not name.isprintable() or "/" in name or name.startswith("."):
        return (
            "a name has no slash, no control character and no leading dot (a password is kept in a file of that name)"
        )
    if name.startswith("pg_"):
        return "names that begin with pg_ are the server's own"
    return ""


def database_state(database: Dict[str, Any]) -> str:
    """The question what one database has of what is declared for it."""
    wanted = [(row["role"], row["owner"]) for row in database.get("readers") or []]
    return DATABASE_STATE % (readers.unreadable(wanted), FILLED)


def load_state(inside: Dict[str, Any]) -> str:
    """Whether a database can be loaded, was, or has something else in it."""
    if (inside["comment"] or "").startswith(LOADED):
        return WAS_LOADED
    return HAS_OTHER if inside["filled"] else NEW


def plan_loads(state: State, databases: List[Dict[str, Any]]) -> Tuple[List[str], List[str]]:
    """The databases that are to be loaded, and those that are not because there is something else in them."""
    pending: List[str] = []
    passed_over: List[str] = []
    for database in databases:
        inside = state.details.get(database["name"])
        found = NEW if inside is None else load_state(inside)
        if database.get("load") and found != WAS_LOADED:
            (pending if found == NEW else passed_over).append(database["name"])
    return pending, passed_over


def find_problems(state: State, roles: List[Dict[str, Any]], databases: List[Dict[str, Any]],
                  clients: List[Dict[str, Any]]) -> List[str]:  # fmt: skip
    """All that stands against the plan, each with where it was said."""
    problems = []
    for label, entries, taken in (
        ("postgresql_roles", roles, ("postgres", "public", "none")),
        ("postgresql_databases", databases, ("postgres", "template0", "template1")),
    ):
        names = [entry["name"] for entry in entries]
        for number, name in enumerate(names):
            where = f"{label}[{number}].name: '{name}'"
            problem = name_problem(name)
            if problem:
                problems.append(f"{where}: {problem}")
            if name in taken:
                problems.append(f"{where} belongs to the server; choose a name of the application's own")
            if name in names[:number]:
                problems.append(f"{where} is there twice; keep one of the two")
    known_roles = {role["name"] for role in roles} | set(state.roles)
    for number, database in enumerate(databases):
        where, owner = f"postgresql_databases[{number}] ('{database['name']}')", database["owner"]
        if owner not in known_roles:
            problems.append(f"{where}: owner '{owner}' is neither in postgresql_roles nor on the server")
        if state.roles.get(owner, {}).get("superuser") and owner not in {role["name"] for role in roles}:
            problems.append(f"{where}: owner '{owner}' is a superuser; an application's owner must not be")
        for extension in database["extensions"]:
            if state.available is not None and extension not in state.available:
                problems.append(
                    f"{where}: extension '{extension}' is not available on this server. Check the spelling; "
                    "if it comes in a package of its own, name that package in postgresql_packages"
                )
        problems += _inner_problems(where, database, known_roles)
    for number, role in enumerate(roles):
        limit = role.get("connection_limit")
        if state.connections is not None and limit is not None and limit > state.connections:
            problems.append(
                f"postgresql_roles[{number}] ('{role['name']}'): connection_limit is {limit}, and the server takes "
                f"{state.connections} connections in all; lower it, or raise max_connections in postgresql_settings"
            )
    known_databases = {database["name"] for database in databases} | set(state.databases)
    for number, client in enumerate(clients):
        where, role, name = f"postgresql_clients[{number}]", client["role"], client["database"]
        if role not in known_roles:
            problems.append(f"{where}: role '{role}' is neither in postgresql_roles nor on the server")
        if name not in known_databases:
            problems.append(f"{where}: database '{name}' is neither in postgresql_databases nor on the server")
    return problems


def _inner_problems(where: str, database: Dict[str, Any], known_roles: Set[str]) -> List[str]:
    """What stands against the schemas of a database and those who read it."""
    problems = []
    names = [schema["name"] for schema in database.get("schemas") or []]
    for number, name in enumerate(names):
        problem = name_problem(name) or ("" if name not in OWN_SCHEMAS else "that schema belongs to the server")
        if problem:
            problems.append(f"{where}: schemas[{number}] '{name}': {problem}")
        if name in names[:number]:
            problems.append(f"{where}: schema '{name}' is there twice; keep one of the two")
    for key, part in (("schemas", "owner"), ("readers", "role"), ("readers", "owner")):
        for number, row in enumerate(database.get(key) or []):
            if row[part] not in known_roles:
                problems.append(
                    f"{where}: {key}[{number}]: '{row[part]}' is neither in postgresql_roles nor on the server"
                )
    return problems


def plan_server(state: State) -> List[Action]:
    """What is one for all databases."""
    if not state.uncounted:
        return []
    return [Action("create extension pg_stat_statements in postgres", "CREATE EXTENSION pg_stat_statements")]


def without(role: Dict[str, Any]) -> Dict[str, str]:
    """The powers a role must not have."""
    return {power: option for power, option in POWERS.items() if power != "replication" or not role.get("replication")}


def plan_roles(state: State, roles: List[Dict[str, Any]]) -> List[Action]:
    actions = []
    for role in roles:
        name, password = role["name"], role["password"]
        present = state.roles.get(name)
        if present is None:
            options = "LOGIN " + " ".join(without(role).values())
            options += " REPLICATION" if role.get("replication") else ""
            if role.get("connection_limit") is not None:
                options += f" CONNECTION LIMIT {int(role['connection_limit'])}"
            sql = f"CREATE ROLE {quote_name(name)} {options} PASSWORD {quote_text(scram.verifier(password))}"
            actions.append(Action(f"create role {name}", sql))
            continue
        wrong = [option for power, option in without(role).items() if present[power]]
        if role.get("replication") and not present["replication"]:
            wrong.append("REPLICATION")
        if not present["login"]:
            wrong.append("LOGIN")
        limit = UNLIMITED if role.get("connection_limit") is None else int(role["connection_limit"])
        if present["limit"] != limit:
            wrong.append(f"CONNECTION LIMIT {limit}")
        if wrong:
            actions.append(
                Action(
                    "alter role {}: {}".format(name, " ".join(wrong)),
                    "ALTER ROLE {} {}".format(quote_name(name), " ".join(wrong)),
                )
            )
        if not scram.matches(password, present["verifier"]):
            sql = f"ALTER ROLE {quote_name(name)} PASSWORD {quote_text(scram.verifier(password))}"
            actions.append(Action(f"change the password of role {name}", sql))
    return actions


def plan_databases(state: State, databases: List[Dict[str, Any]], clients: List[Dict[str, Any]]) -> List[Action]:
    actions = []
    for database in databases:
        name, owner = database["name"], database["owner"]
        quoted, quoted_owner = quote_name(name), quote_name(owner)
        present = state.databases.get(name)
        if present is None:
            # From template0, so that encoding and collation are ours and not what the host's locale happened to be.
            locale = quote_text(database.get("locale") or DEFAULT_LOCALE)
            sql = "CREATE DATABASE %s OWNER %s TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE %s LC_CTYPE %s"
            actions.append(Action(f"create database {name}", sql % (quoted, quoted_owner, locale, locale)))
            present = {"owner": owner, "public": True, "connect": []}
        if present["owner"] != owner:
            actions.append(
                Action(f"give database {name} to {owner}", f"ALTER DATABASE {quoted} OWNER TO {quoted_owner}")
            )
        if present["public"]:
            actions.append(
                Action(f"close database {name} to other roles", f"REVOKE ALL ON DATABASE {quoted} FROM PUBLIC")
            )
        wanted = {client["role"] for client in clients if client["database"] == name}
        wanted |= {schema["owner"] for schema in database.get("schemas") or []}
        wanted |= {reader["role"] for reader in database.get("readers") or []}
        for role in sorted(wanted - {owner} - set(present["connect"])):
            sql = f"GRANT CONNECT ON DATABASE {quoted} TO {quote_name(role)}"
            actions.append(Action(f"let role {role} connect to database {name}", sql))
        actions += plan_inside(state, database)
    return actions


def plan_inside(state: State, database: Dict[str, Any]) -> List[Action]:
    """What happens within one database: its extensions, its schemas, and who may read what is in them."""
    name, owner = database["name"], database["owner"]
    inside = state.details.get(name) or fresh_database(state.version)
    actions = []
    for extension in database["extensions"]:
        if extension not in inside["extensions"]:
            sql = f"CREATE EXTENSION {quote_name(extension)}"
            actions.append(Action(f"create extension {extension} in {name}", sql, name))
    schema = inside["public_schema"]
    if schema and schema["owner"] == "postgres":
        sql = f"ALTER SCHEMA public OWNER TO {quote_name(owner)}"
        actions.append(Action(f"give schema public of {name} to {owner}", sql, name))
    if schema and schema["open"]:
        # Before PostgreSQL 15 whoever could connect could also create objects there.
        actions.append(Action(f"close schema public of {name}", "REVOKE CREATE ON SCHEMA public FROM PUBLIC", name))
    for row in database.get("schemas") or []:
        quoted, quoted_owner = quote_name(row["name"]), quote_name(row["owner"])
        if row["name"] not in inside["schemas"]:
            sql = f"CREATE SCHEMA {quoted} AUTHORIZATION {quoted_owner}"
            actions.append(Action(f"create schema {row['name']} of {name}", sql, name))
        elif inside["schemas"][row["name"]] != row["owner"]:
            sql = f"ALTER SCHEMA {quoted} OWNER TO {quoted_owner}"
            actions.append(Action(f"give schema {row['name']} of {name} to {row['owner']}", sql, name))
    for row in database.get("readers") or []:
        if inside["unreadable"] is None or row["role"] in inside["unreadable"]:
            sql = readers.let_read(row["role"], row["owner"])
            actions.append(Action(f"let role {row['role']} read what {row['owner']} has in {name}", sql, name))
    return actions


def fresh_database(version: int) -> Dict[str, Any]:
    """What template0 gives a new database."""
    modern = version >= 15
    schema = {"owner": "pg_database_owner" if modern else "postgres", "open": not modern}
    # Nobody can read it: `unreadable` is None.
    return {"extensions": ["plpgsql"], "public_schema": schema, "schemas": {}, "unreadable": None}
