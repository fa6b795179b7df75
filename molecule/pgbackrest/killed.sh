#!/bin/sh
# A backup that is killed in its middle, and the next one.
cd /
before=$(shipshape-pgbackrest list | grep -c bytes)
runuser -u postgres -- psql -Xqd shop -c 'DROP TABLE IF EXISTS ballast' -c 'CREATE TABLE ballast AS SELECT md5(g::text || random()) FROM generate_series(1, 600000) AS g'
shipshape-pgbackrest run full & run=$!
for attempt in $(seq 200); do runuser -u postgres -- psql -XAtc "SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'pgBackRest \[backup\]%'" | grep -q 1 && break; sleep 0.05; done
sleep 0.3
kill -9 $run && pkill -9 -x pgbackrest
wait
shipshape-pgbackrest run full && test "$(shipshape-pgbackrest list | grep -c bytes)" = "$((before + 1))"
status=$?
runuser -u postgres -- psql -Xqd shop -c 'DROP TABLE ballast'
exit $status
