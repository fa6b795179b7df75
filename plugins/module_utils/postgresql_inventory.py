"""What is in a PostgreSQL server, so that it can be told whether two have the same: roles, databases, tables, rows."""

from __future__ import annotations

import json
from typing import Any, Dict, List, Mapping

from ansible_collections.shipshape.droplet.plugins.module_utils.postgresql_server import Cluster

#: Up to so much data, every row is counted while the apps wait; beyond, the sizes of the tables' files are compared.
COUNTED_BYTES = 4 << 30
#: Of SQL that psql builds its statements from; a session of ours has no plans to keep.
GEXEC = "\\gexec\n"

EXTENSIONS = "SELECT coalesce(json_agg(extname ORDER BY extname), '[]') FROM pg_extension"
ROLES = """
SELECT coalesce(json_object_agg(r.rolname, md5(concat_ws('|', r.rolsuper, r.rolinherit, r.rolcreaterole, r.rolcreatedb,
  r.rolcanlogin, r.rolreplication, r.rolbypassrls, r.rolconnlimit, r.rolvaliduntil, r.rolpassword,
  (SELECT string_agg(g.rolname, ',' ORDER BY g.rolname) FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid
    WHERE m.member = r.oid),
  (SELECT s.setconfig::text FROM pg_db_role_setting s WHERE s.setrole = r.oid AND s.setdatabase = 0)))), '{}')
FROM pg_authid r WHERE r.rolname !~ '^pg_'
"""
DATABASES = """
SELECT json_object_agg(datname, concat_ws(' ', pg_get_userbyid(datdba), pg_encoding_to_char(encoding), datcollate,
  datctype, datconnlimit)) FROM pg_database WHERE datallowconn
"""
# What belongs to an extension is the extension's, and may be another in its next version.
OWN = "NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = '{0}'::regclass AND d.objid = {1} AND d.deptype = 'e')"
USER_SCHEMA = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"
OBJECTS = f"""
SELECT json_build_object(
  'extensions', ({EXTENSIONS}),
  'invalid', (SELECT coalesce(json_agg(indexrelid::regclass::text), '[]') FROM pg_index WHERE NOT indisvalid),
  'objects', (SELECT coalesce(json_object_agg(kind, number), '{{}}') FROM (
    SELECT CASE c.relkind WHEN 'i' THEN 'indexes' WHEN 'I' THEN 'indexes' WHEN 'S' THEN 'sequences'
        WHEN 'v' THEN 'views' ELSE 'other relations' END AS kind, count(*) AS number
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE {USER_SCHEMA} AND c.relkind NOT IN ('r', 'm', 't') AND {OWN.format("pg_class", "c.oid")} GROUP BY 1
    UNION ALL SELECT 'functions', count(*) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
      WHERE {USER_SCHEMA} AND {OWN.format("pg_proc", "p.oid")}
    UNION ALL SELECT 'triggers', count(*) FROM pg_trigger WHERE NOT tgisinternal) AS counted),
  'tables', (SELECT coalesce(json_object_agg(format('%I.%I', n.nspname, c.relname),
      json_build_object('rows', NULL, 'bytes', pg_relation_size(c.oid))), '{{}}')
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE {USER_SCHEMA} AND c.relkind IN ('r', 'm') AND c.relpersistence <> 't' AND {OWN.format("pg_class", "c.oid")}))
"""
# An unlogged table is one all the same; of a view that was never filled, nobody can count the rows.
COUNT = f"""
SELECT format('SELECT json_build_array(%L, (SELECT count(*) FROM ONLY %I.%I))', format('%I.%I', n.nspname, c.relname),
  n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE {USER_SCHEMA} AND c.relkind IN ('r', 'm') AND c.relispopulated AND c.relpersistence <> 't'
  AND {OWN.format("pg_class", "c.oid")} {GEXEC}"""


def take(cluster: Cluster) -> Dict[str, Any]:
    """What is in a server, in numbers: the same before and after, or something is lost."""
    like = cluster.query(DATABASES)
    found: Dict[str, Any] = {"roles": cluster.query(ROLES), "databases": {}}
    counted = cluster.query("SELECT sum(pg_database_size(oid)) FROM pg_database") <= COUNTED_BYTES
    for name in sorted(like):
        database = cluster.query(OBJECTS, name)
        for line in cluster.execute(COUNT, name).splitlines() if counted else []:
            table, rows = json.loads(line)
            database["tables"][table]["rows"] = rows
        found["databases"][name] = {"like": like[name], **database}
    return found


def differences(before: Mapping[str, Any], after: Mapping[str, Any], sizes: bool = True) -> List[str]:
    """Where two inventories of a server disagree; `sizes` also compares the tables' files."""
    lines = _pairs("role", before["roles"], after["roles"], "has other attributes, memberships or another password")
    lines += _pairs("database", _alike(before), _alike(after), "has another owner, encoding or locale")
    for name in sorted(set(before["databases"]) & set(after["databases"])):
        old, new = before["databases"][name], after["databases"][name]
        inside = _pairs("extension", dict.fromkeys(old["extensions"]), dict.fromkeys(new["extensions"]), "")
        inside += [
            f"{kind}: {old['objects'].get(kind, 0)} before, {new['objects'].get(kind, 0)} after"
            for kind in sorted({*old["objects"], *new["objects"]})
            if old["objects"].get(kind, 0) != new["objects"].get(kind, 0)
        ]
        inside += [f"index {index} is not valid" for index in sorted({*new["invalid"]} - {*old["invalid"]})]
        inside += _tables(old["tables"], new["tables"], sizes)
        lines += [f"database {name}: {line}" for line in inside]
    return lines


def _alike(inventory: Mapping[str, Any]) -> Dict[str, Any]:
    return {name: database["like"] for name, database in inventory["databases"].items()}


def _pairs(what: str, before: Mapping[str, Any], after: Mapping[str, Any], changed: str) -> List[str]:
    lines = [f"{what} {name} is missing" for name in sorted(set(before) - set(after))]
    lines += [f"{what} {name} was not there before" for name in sorted(set(after) - set(before))]
    lines += [f"{what} {name} {changed}" for name in sorted(set(before) & set(after)) if before[name] != after[name]]
    return lines


def _tables(before: Mapping[str, Any], after: Mapping[str, Any], sizes: bool) -> List[str]:
    lines = _pairs("table", dict.fromkeys(before), dict.fromkeys(after), "")
    for name in sorted(set(before) & set(after)):
        old, new = before[name], after[name]
        if old["rows"] is not None and new["rows"] is not None and old["rows"] != new["rows"]:
            lines.append(f"table {name}: {old['rows']} rows before, {new['rows']} after")
        elif sizes and old["bytes"] != new["bytes"]:
            lines.append(f"table {name}: {old['bytes']} bytes before, {new['bytes']} after")
    return lines


def written(counters: Mapping[str, Mapping[str, int]], changed: List[str]) -> List[str]:
    """What was written since the switch: rows by database and table, and what else is not as it was then."""
    lines = [
        f"database {database}: {rows} rows written in {table}"
        for database, tables in sorted(counters.items())
        for table, rows in sorted(tables.items())
    ]
    counted = {(database, table) for database, tables in counters.items() for table in tables}
    told = [f"database {database}: table {table}:" for database, table in counted]
    return lines + [line for line in changed if not line.startswith(tuple(told))]


def summary(inventory: Mapping[str, Any]) -> str:
    """What was compared, in one line."""
    tables = [table for database in inventory["databases"].values() for table in database["tables"].values()]
    rows = [table["rows"] for table in tables]
    counted = sum(row for row in rows if row is not None)
    how = f"{counted} rows" if None not in rows else "their files' sizes (too large to count the rows)"
    return (
        f"{len(inventory['roles'])} roles with their passwords, {len(inventory['databases'])} databases, "
        f"{len(tables)} tables, {how}"
    )
