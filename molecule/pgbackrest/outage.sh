#!/bin/sh
# A store that is away until the log has filled its queue, and comes back.
cd /
rm -rf /tmp/outage && cp -a /etc/shipshape/pgbackrest /tmp/outage
sed -i 's/"behind_minutes": 10/"behind_minutes": 0.02/' /tmp/outage/config.json
cp -p /etc/pgbackrest/pgbackrest.conf /root/pgbackrest.conf
python3 /tmp/receiver.py > /tmp/received & receiver=$!
trap 'cp -p /root/pgbackrest.conf /etc/pgbackrest/pgbackrest.conf; kill $receiver' EXIT
watch() { shipshape-pgbackrest --configuration /tmp/outage watch; }
switch() {
  runuser -u postgres -- psql -XAtqd shop -c 'INSERT INTO orders SELECT max(id) + 1 FROM orders' -c 'SELECT pg_switch_wal()' > /dev/null
}
watch
sed -i 's/^repo1-s3-endpoint=.*/repo1-s3-endpoint=nowhere.test/; s/^archive-push-queue-max=.*/archive-push-queue-max=64MB/; s/^io-timeout=.*/io-timeout=1/' /etc/pgbackrest/pgbackrest.conf
switch; sleep 3; watch
echo until $(cat /var/lib/shipshape/pgbackrest/archived-until)
for segment in 1 2 3 4 5 6 7 8; do switch; done
ready() { ls /var/lib/postgresql/*/main/pg_wal/archive_status | grep -c ready; }
for attempt in $(seq 300); do test "$(ready)" = 0 && break; sleep 0.2; done
watch; cat /var/lib/shipshape/pgbackrest/gap
cp -p /root/pgbackrest.conf /etc/pgbackrest/pgbackrest.conf
switch; shipshape-pgbackrest run && test ! -e /var/lib/shipshape/pgbackrest/gap
echo status $?
watch; watch
cat /tmp/received
