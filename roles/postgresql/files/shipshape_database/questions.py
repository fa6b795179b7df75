"""What is asked of a database."""

from __future__ import annotations

SIZES = """
SELECT format('%I.%I', schemaname, relname) AS name, n_live_tup AS rows, n_dead_tup AS dead,
  pg_total_relation_size(relid) AS total, pg_table_size(relid) AS own, pg_indexes_size(relid) AS indexes,
  greatest(last_vacuum, last_autovacuum) AS vacuumed, greatest(last_analyze, last_autoanalyze) AS analyzed
FROM pg_stat_user_tables ORDER BY total DESC, name LIMIT :'limit'::int
"""
SLOW = """
SELECT coalesce(datname, '?') AS database, calls, mean_exec_time AS mean, max_exec_time AS most,
  total_exec_time AS total,
  100 * total_exec_time / nullif(sum(total_exec_time) OVER (), 0) AS share, query
FROM pg_stat_statements AS s LEFT JOIN pg_database AS d ON d.oid = s.dbid
WHERE (:'only' = '' OR datname = :'only') AND query !~* '^ *(begin|commit|copy|vacuum|analyze|create|alter)'
ORDER BY total_exec_time DESC LIMIT :'limit'::int
"""
# An estimate from the planner's statistics: what the rows need by their mean width, against the pages there are. A row
# has a head of 28 bytes with its pointer, an entry of an index 12; a page has a head, and an index leaves a tenth free.
_WIDTH = """
SELECT sum((1 - null_frac) * avg_width) FROM pg_stats AS s
WHERE s.schemaname = n.nspname AND s.tablename = t.relname AND NOT s.inherited"""
BLOAT = f"""
SELECT kind, name, pages * 8192 AS size, greatest(0, pages - ceil(needed)) * 8192 AS waste, dead FROM (
  SELECT 'table' AS kind, format('%I.%I', n.nspname, t.relname) AS name, t.relpages AS pages,
    t.reltuples * (28 + ceil(({_WIDTH}) / 8) * 8) / 8168 AS needed, pg_stat_get_dead_tuples(t.oid) AS dead
  FROM pg_class AS t JOIN pg_namespace AS n ON n.oid = t.relnamespace
  WHERE t.relkind IN ('r', 'm') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  UNION ALL
  SELECT 'index', format('%I.%I', n.nspname, i.relname), i.relpages,
    i.reltuples * (12 + ceil(({_WIDTH} AND s.attname IN (SELECT attname FROM pg_attribute AS a
      WHERE a.attrelid = t.oid AND a.attnum = ANY (x.indkey))) / 8) * 8) / (8152 * 0.9) + 1, 0
  FROM pg_index AS x JOIN pg_class AS i ON i.oid = x.indexrelid JOIN pg_class AS t ON t.oid = x.indrelid
    JOIN pg_namespace AS n ON n.oid = t.relnamespace JOIN pg_am ON pg_am.oid = i.relam
  WHERE amname = 'btree' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema') AS one
WHERE needed IS NOT NULL AND pages > 8 ORDER BY waste DESC, name LIMIT :'limit'::int
"""
DEAD = """
SELECT format('%I.%I', schemaname, relname) AS name, n_dead_tup AS dead, pg_total_relation_size(relid) AS total
FROM pg_stat_user_tables ORDER BY name
"""
INDEXES = """
SELECT format('%I.%I', n.nspname, i.relname) AS name, pg_relation_size(i.oid) AS size, indisvalid AS valid
FROM pg_index JOIN pg_class AS i ON i.oid = indexrelid JOIN pg_namespace AS n ON n.oid = i.relnamespace
WHERE indrelid = to_regclass(:'table') ORDER BY name
"""
TABLES = """
SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables
WHERE schemaname !~ '^pg_' AND schemaname <> 'information_schema' ORDER BY name
"""
TABLE = """
SELECT format('%I.%I', nspname, relname) AS name FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE pg_class.oid = to_regclass(:'table') AND relkind IN ('r', 'm', 'p')
"""
