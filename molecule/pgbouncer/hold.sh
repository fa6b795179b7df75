#!/bin/sh
# Says which process PgBouncer is, and leaves somebody behind who stays connected until /tmp/go-on is there.
export PAGER=cat
systemctl show --property MainPID --value pgbouncer.service
rm -f /tmp/go-on /tmp/held
setsid sh -c '{
    echo "SELECT 1;"
    until [ -e /tmp/go-on ]; do sleep 0.3; done
    echo "SELECT '"'still there'"';"
} | psql -XAtw "host=127.0.0.1 port=6543 user=shop dbname=shop"' >/tmp/held 2>&1 </dev/null &
sleep 1
