"""PostgreSQL's extensions by their SQL names: those that come with the server, and those that have a package."""

from __future__ import annotations

from collections.abc import Iterable

#: In the server's own package, in at least one of the versions 13 to 17.
_WITH_THE_SERVER = """adminpack amcheck autoinc bloom btree_gin btree_gist citext cube dblink dict_int dict_xsyn
    earthdistance file_fdw fuzzystrmatch hstore insert_username intagg intarray isn lo ltree moddatetime old_snapshot
    pageinspect pg_buffercache pg_freespacemap pg_prewarm pg_stat_statements pg_surgery pg_trgm pg_visibility
    pg_walinspect pgcrypto pgrowlocks pgstattuple plpgsql postgres_fdw refint seg sslinfo tablefunc tcn
    tsm_system_rows tsm_system_time unaccent uuid-ossp xml2"""
WITH_THE_SERVER = frozenset(_WITH_THE_SERVER.split())
#: In a package of their own; the server's major version is part of its name.
PACKAGES = {
    "hll": "postgresql-{}-hll",
    "hypopg": "postgresql-{}-hypopg",
    "ip4r": "postgresql-{}-ip4r",
    "pg_cron": "postgresql-{}-cron",
    "pg_hint_plan": "postgresql-{}-pg-hint-plan",
    "pg_partman": "postgresql-{}-partman",
    "pg_repack": "postgresql-{}-repack",
    "pgaudit": "postgresql-{}-pgaudit",
    "pglogical": "postgresql-{}-pglogical",
    "pgrouting": "postgresql-{}-pgrouting",
    "pgtap": "postgresql-{}-pgtap",
    "plperl": "postgresql-plperl-{}",
    "plpython3u": "postgresql-plpython3-{}",
    "postgis": "postgresql-{}-postgis-3",
    "postgis_raster": "postgresql-{}-postgis-3",
    "postgis_topology": "postgresql-{}-postgis-3",
    "prefix": "postgresql-{}-prefix",
    "rum": "postgresql-{}-rum",
    "semver": "postgresql-{}-semver",
    "vector": "postgresql-{}-pgvector",
}
KNOWN = WITH_THE_SERVER | set(PACKAGES)
#: What people write for them: the name of the project, or a hyphen where SQL has an underscore.
MEANT = {"pgvector": "vector", "pg_vector": "vector", "uuid_ossp": "uuid-ossp", "uuid": "uuid-ossp", "trgm": "pg_trgm"}


def packages(extensions: Iterable[str], version: str) -> list[str]:
    """The packages that bring these extensions beside the server's own, each once."""
    return list(dict.fromkeys(PACKAGES[name].format(version) for name in extensions if name in PACKAGES))
