#!/bin/sh
# What PgBouncer's own role is, may, and may not.
export PAGER=cat
cd /
as_pooler() { runuser -u pgbouncer -- psql -XAt -d "$1" -c "$2" 2>&1 | grep -o -e '^[0-9]$' -e 'permission denied'; }
runuser -u postgres -- psql -XAtc "SELECT rolpassword IS NULL, rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb
  OR rolreplication FROM pg_authid WHERE rolname = 'pgbouncer'"
as_pooler shop "SELECT count(*) FROM pgbouncer.get_auth('shop')"
as_pooler shop "SELECT count(*) FROM pgbouncer.get_auth('postgres')"
as_pooler shop "SELECT count(*) FROM pgbouncer.get_auth('desk')"
as_pooler shop "TABLE pg_authid"
as_pooler postgres "SELECT 1"
# Nobody else is let in by that name.
runuser -u nobody -- psql -XAtw -U pgbouncer -d shop -c "SELECT 1" 2>&1 | grep -o 'Peer authentication failed'
