#!/bin/sh
# 500 clients at once through PgBouncer; says what pgbench says, and how many connections the server had at most.
export PAGER=cat
cd /
ulimit -n 4096
pgbench --select-only --no-vacuum --client 500 --jobs 2 --transactions 20 -h 127.0.0.1 -p 6543 -U shop shop &
bench=$!
most=0
while kill -0 $bench 2>/dev/null; do
    now=$(runuser -u postgres -- psql -XAtc "SELECT count(*) FROM pg_stat_activity
        WHERE backend_type = 'client backend' AND usename IN ('shop', 'pgbouncer')")
    [ "$now" -le "$most" ] || most=$now
    sleep 0.2
done
wait $bench
echo "exit $? most $most"
