#!/bin/sh
# Does to a service what the arguments say, and waits until a login through PgBouncer works again.
export PAGER=cat
systemctl "$@"
for attempt in $(seq 20); do
    sleep 0.5
    psql -XAtw "host=127.0.0.1 port=6543 user=shop dbname=shop" -c 'SELECT 1' 2>/dev/null && exit
done
exit 1
