#!/bin/sh
# Says which process PgBouncer is, and leaves somebody behind who stays connected for a while.
export PAGER=cat
systemctl show --property MainPID --value pgbouncer.service
{
    echo "SELECT 1;"
    sleep 25
    echo "SELECT 'still there';"
} | setsid psql -XAtw "host=127.0.0.1 port=6543 user=shop dbname=shop" >/tmp/held 2>&1 &
