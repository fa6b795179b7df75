"""What PgBouncer needs of PostgreSQL, and whether its pools fit. Pure: asks nothing, changes nothing."""

from __future__ import annotations

import re
from typing import Any, Dict, List, Mapping, Optional, Sequence

from ansible_collections.shipshape.droplet.plugins.module_utils.postgresql_plan import (
    POWERS,
    Action,
    quote_name,
    quote_text,
)

#: Its role and its schema in each database. No role has its password, because it has none.
ROLE = SCHEMA = "pgbouncer"
#: What its configuration takes for the name of a database.
NAME = re.compile(r"[A-Za-z0-9_.-]+$")
#: Connections for looking up verifiers (max_user_connections of that role).
LOOKUPS = 3
#: Whom a database lets in by password. Superusers and roles that may not connect here are as unknown as any stranger.
BODY = """
SELECT rolname::text, rolpassword FROM pg_catalog.pg_authid
WHERE rolname = wanted AND rolcanlogin AND NOT rolsuper AND NOT rolreplication
  AND (rolvaliduntil IS NULL OR rolvaliduntil > pg_catalog.now())
  AND pg_catalog.has_database_privilege(oid, pg_catalog.current_database(), 'CONNECT')
"""
SERVER_STATE = """
SELECT json_build_object(
  'connections', current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
      - coalesce(current_setting('reserved_connections', true), '0')::int,
  'role', (SELECT json_build_object('login', rolcanlogin, 'password', rolpassword IS NOT NULL, 'superuser', rolsuper,
      'bypassrls', rolbypassrls, 'createdb', rolcreatedb, 'createrole', rolcreaterole, 'replication', rolreplication)
      FROM pg_authid WHERE rolname = 'pgbouncer'),
  'verifiers', (SELECT coalesce(json_object_agg(rolname, rolpassword), '{}') FROM pg_authid WHERE rolcanlogin),
  'databases', (SELECT json_agg(datname) FROM pg_database))
"""
# The role may not be there yet.
DATABASE_STATE = """
WITH me AS (SELECT oid FROM pg_roles WHERE rolname = 'pgbouncer')
SELECT json_build_object(
  'connect', coalesce((SELECT has_database_privilege(oid, current_database(), 'CONNECT') FROM me), false),
  'schema', (SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = 'pgbouncer'),
  'usage', coalesce((SELECT has_schema_privilege(me.oid, n.oid, 'USAGE') FROM me, pg_namespace n
      WHERE n.nspname = 'pgbouncer'), false),
  'function', (SELECT json_build_object('body', prosrc, 'owner', pg_get_userbyid(proowner), 'definer', prosecdef,
      'settings', proconfig, 'public', has_function_privilege('public', p.oid, 'EXECUTE'),
      'execute', coalesce((SELECT has_function_privilege(me.oid, p.oid, 'EXECUTE') FROM me), false))
      FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace
      WHERE n.nspname = 'pgbouncer' AND proname = 'get_auth' AND proargtypes = '25'))
"""
SETTINGS = ["search_path=pg_catalog, pg_temp"]
FUNCTION = {"body": BODY, "owner": "postgres", "definer": True, "settings": SETTINGS, "execute": True, "public": False}


def label(pool: Mapping[str, Any]) -> str:
    return str(pool.get("name") or pool["database"])


def entry(pool: Mapping[str, Any]) -> str:
    """The database that clients ask for: an app in another's database has a pool of its own there."""
    return str(pool.get("entry") or pool["database"])


def total(pools: Sequence[Mapping[str, Any]], reserve: int) -> int:
    """The most connections to the server that the pools may ever have."""
    return sum(int(pool["size"]) + int(reserve) for pool in pools) + (LOOKUPS if pools else 0)


def shortage(pools: Sequence[Mapping[str, Any]], reserve: int, connections: int) -> str:
    """Why the pools do not fit into what the server gives; nothing when they do."""
    wanted = total(pools, reserve)
    if wanted <= connections:
        return ""
    each = ", ".join("{} {} + {}".format(label(pool), pool["size"], reserve) for pool in pools)
    return (
        f"The pools need {wanted} connections to PostgreSQL ({each}, each size + pgbouncer_reserve_pool_size; "
        f"{LOOKUPS} to look up logins), and it gives {connections} to those who are no superuser. Make "
        f"apps.NAME.database.pool smaller, or set postgresql_settings: {{max_connections: {wanted + 10}}}"
    )


def problems(pools: Sequence[Mapping[str, Any]], databases: Sequence[str]) -> List[str]:
    """What stands against the pools, each with where it was said."""
    found, seen = [], set()
    for number, pool in enumerate(pools):
        where = f"pgbouncer_pools[{number}]"
        name = pool["database"]
        asked = entry(pool)
        if ROLE in (name, asked):
            found.append(f"{where}: database 'pgbouncer' is PgBouncer's own console; give the database another name")
        elif not NAME.match(name) or not NAME.match(asked):
            found.append(f"{where}: database '{asked}'; PgBouncer takes letters, digits, dots, hyphens and underscores")
        elif name not in databases:
            found.append(f"{where}: database '{name}' is not on the server; it has: {', '.join(sorted(databases))}")
        if asked in seen:
            found.append(
                f"{where}: database '{asked}' has a pool already, and PgBouncer knows one for each; give a second one "
                "an `entry` of its own"
            )
        seen.add(asked)
        if int(pool["size"]) < 1:
            found.append(f"{where}: size is {pool['size']}; a pool has one connection at least")
    return found


def plan_role(role: Optional[Mapping[str, Any]]) -> List[Action]:
    """Its role: it may log in, without a password, and nothing else."""
    if role is None:
        return [Action(f"create role {ROLE}", f"CREATE ROLE {ROLE} LOGIN {' '.join(POWERS.values())}")]
    wrong = [option for power, option in POWERS.items() if role[power]]
    wrong += [] if role["login"] else ["LOGIN"]
    wrong += ["PASSWORD NULL"] if role["password"] else []
    return [Action(f"alter role {ROLE}: {' '.join(wrong)}", f"ALTER ROLE {ROLE} {' '.join(wrong)}")] if wrong else []


def schema_problem(database: str, state: Mapping[str, Any]) -> str:
    """Whoever owned the schema could put another function into the place of ours."""
    if state["schema"] in (None, "postgres"):
        return ""
    return (
        f"database {database} has a schema pgbouncer that belongs to {state['schema']}; PgBouncer's own must be the "
        f"superuser's. Rename it: ALTER SCHEMA pgbouncer RENAME TO {database}_pgbouncer"
    )


def plan_database(database: str, state: Optional[Mapping[str, Any]]) -> List[Action]:
    """The function by which it looks up a login, in a database that comes by way of it. None: nobody could be asked."""
    wanted: Dict[str, Any] = {"connect": True, "schema": "postgres", "usage": True, "function": FUNCTION}
    if state == wanted:
        return []
    sql = f"""BEGIN;
GRANT CONNECT ON DATABASE {quote_name(database)} TO {ROLE};
CREATE SCHEMA IF NOT EXISTS {SCHEMA} AUTHORIZATION postgres;
GRANT USAGE ON SCHEMA {SCHEMA} TO {ROLE};
DROP FUNCTION IF EXISTS {SCHEMA}.get_auth(text);
CREATE FUNCTION {SCHEMA}.get_auth(wanted text) RETURNS TABLE (name text, verifier text)
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS {quote_text(BODY)};
REVOKE ALL ON FUNCTION {SCHEMA}.get_auth(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION {SCHEMA}.get_auth(text) TO {ROLE};
COMMIT"""
    return [Action(f"let PgBouncer look up logins in database {database}", sql, database)]
