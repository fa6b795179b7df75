"""What a database holds, as a rehearsal of a restore looks at it: rows, newest times, whether the indexes are whole.

Roles put this file beside their own programs on a droplet: it needs nothing but Python.
"""

from __future__ import annotations

import json
from typing import Any, Dict

#: For psql, which runs what it answers. Of the live server nothing is asked that takes longer than a minute, and
#: nothing by more than one process. `writes` is how often rows were written since the statistics began.
TABLES = """
SET statement_timeout = '60s';
SET max_parallel_workers_per_gather = 0;
SET default_transaction_read_only = on;
SET timezone = 'UTC';
SELECT format(
  'SELECT json_build_object(''table'', %L, ''rows'', count(*), ''newest'', json_build_array(%s), ''writes'', '
  '(SELECT coalesce(max(n_tup_ins + n_tup_upd + n_tup_del), 0) FROM pg_stat_all_tables '
  'WHERE relid = %L::regclass)) FROM ONLY %s',
  c.oid::regclass,
  (SELECT string_agg(format('max(%I)::text', attname), ', ' ORDER BY attnum) FROM pg_attribute
    WHERE attrelid = c.oid AND NOT attisdropped
    AND atttypid IN ('timestamptz'::regtype, 'timestamp'::regtype, 'date'::regtype)),
  c.oid::regclass, c.oid::regclass)
FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
WHERE relkind IN ('r', 'm') AND relpersistence = 'p' AND nspname !~ '^(pg_|information_schema$)' ORDER BY c.oid
\\gexec
"""

#: Answers how many were looked at, or with an error that names the one that is damaged.
INDEXES = """
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS amcheck;
SELECT count(bt_index_check(indexrelid)::text)
FROM pg_index JOIN pg_class c ON c.oid = indexrelid JOIN pg_am a ON a.oid = relam
WHERE amname = 'btree' AND relkind = 'i' AND relpersistence = 'p' AND indisready AND indisvalid;
"""


def tables(answered: str) -> Dict[str, Dict[str, Any]]:
    """What TABLES was answered, by table: `rows`, `newest` of each column that is a time, and `writes`."""
    rows = [json.loads(line) for line in answered.splitlines()]
    return {row.pop("table"): row for row in rows}
