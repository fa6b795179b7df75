"""Roles that may read all that another role has in a database, and will have there. Pure: statements alone."""

from __future__ import annotations

from typing import List, Tuple

from ansible_collections.shipshape.droplet.plugins.module_utils.postgresql_names import quote_name, quote_text

#: Schemas of the server itself; those for temporary tables begin so, too.
_OWN = "nspname !~ '^pg_' AND nspname <> 'information_schema'"
_READABLE = "relkind IN ('r', 'p', 'v', 'm', 'f', 'S')"
#: Default privileges by the letter of their kind in pg_default_acl.
DEFAULTS = {"n": "USAGE ON SCHEMAS", "r": "SELECT ON TABLES", "S": "SELECT ON SEQUENCES"}


def _lacks(acl: str, right: str) -> str:
    """Neither the role nor everybody has the right."""
    return (
        f"NOT EXISTS (SELECT FROM aclexplode({acl}) AS entry LEFT JOIN pg_roles ON pg_roles.oid = entry.grantee "
        f"WHERE (entry.grantee = 0 OR rolname = wanted.reader) AND privilege_type = '{right}')"
    )


def unreadable(wanted: List[Tuple[str, str]]) -> str:
    """The question which of these readers lack a right, each asked for with the role whose things it reads."""
    if not wanted:
        return "SELECT '[]'::json"
    rows = ", ".join(f"({quote_text(reader)}, {quote_text(owner)})" for reader, owner in wanted)
    defaults = " OR ".join(
        "NOT EXISTS (SELECT FROM pg_default_acl, aclexplode(defaclacl) AS entry JOIN pg_roles ON oid = entry.grantee "
        "WHERE pg_get_userbyid(defaclrole) = wanted.owner AND defaclnamespace = 0 AND rolname = wanted.reader "
        f"AND defaclobjtype = '{letter}' AND privilege_type = '{grant.split()[0]}')"
        for letter, grant in DEFAULTS.items()
    )
    return f"""
    SELECT coalesce(json_agg(DISTINCT reader), '[]') FROM (VALUES {rows}) AS wanted (reader, owner)
    WHERE EXISTS (SELECT FROM pg_namespace WHERE pg_get_userbyid(nspowner) = wanted.owner AND {_OWN}
        AND {_lacks("coalesce(nspacl, acldefault('n', nspowner))", "USAGE")})
      OR EXISTS (SELECT FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
        WHERE pg_get_userbyid(relowner) = wanted.owner AND {_READABLE} AND {_OWN}
        AND {_lacks("coalesce(relacl, acldefault('r', relowner))", "SELECT")})
      OR {defaults}"""


def let_read(reader: str, owner: str) -> str:
    """One statement after another: what the owner makes from now on, then each thing that is there."""
    to = f"TO {quote_name(reader)}"
    comes = [f"ALTER DEFAULT PRIVILEGES FOR ROLE {quote_name(owner)} GRANT {grant} {to}" for grant in DEFAULTS.values()]
    here = f"""
DECLARE said text;
BEGIN
  FOR said IN
    SELECT format('GRANT USAGE ON SCHEMA %I TO %I', nspname, {quote_text(reader)}) FROM pg_namespace
      WHERE pg_get_userbyid(nspowner) = {quote_text(owner)} AND {_OWN}
    UNION ALL
    SELECT format('GRANT SELECT ON %I.%I TO %I', nspname, relname, {quote_text(reader)})
      FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
      WHERE pg_get_userbyid(relowner) = {quote_text(owner)} AND {_READABLE} AND {_OWN}
  LOOP
    EXECUTE said;
  END LOOP;
END"""
    return ";\n".join([*comes, f"DO {quote_text(here)}"])
