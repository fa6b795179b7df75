#!/bin/sh
# The network to the store is away until the log has filled its queue, and comes back. The first word of each line is what it is of.
cd /
DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends iptables > /dev/null || exit 1
rm -rf /tmp/outage && cp -a /etc/shipshape/pgbackrest /tmp/outage
sed -i 's/"behind_minutes": 10/"behind_minutes": 0.02/' /tmp/outage/config.json
cp -p /etc/pgbackrest/pgbackrest.conf /root/pgbackrest.conf
python3 /tmp/receiver.py > /tmp/received & receiver=$!
store=$(getent ahostsv4 s3.test | awk '{print $1; exit}')
away() { iptables "$1" OUTPUT --destination "$store" --jump DROP; }
trap 'away --delete 2> /dev/null; cp -p /root/pgbackrest.conf /etc/pgbackrest/pgbackrest.conf; kill $receiver' EXIT
sql() { runuser -u postgres -- psql -XAtqd shop "$@"; }
watch() { shipshape-pgbackrest --configuration /tmp/outage watch; }
order() { sql -c 'INSERT INTO orders SELECT max(id) + 1 FROM orders' -c 'SELECT pg_switch_wal()' > /dev/null; }
state=/var/lib/shipshape/pgbackrest
sed -i 's/^archive-push-queue-max=.*/archive-push-queue-max=64MB/; s/^io-timeout=.*/io-timeout=2/' /etc/pgbackrest/pgbackrest.conf
watch
began=$(date +%s)
away --insert
order; sleep 3; watch
shipshape-pgbackrest --configuration /tmp/outage run 2>&1 | sed 's/^/run /'
for segment in 1 2 3 4 5 6 7 8 9 10 11 12; do order; done
ready() { ls /var/lib/postgresql/*/main/pg_wal/archive_status | grep -c ready; }
for attempt in $(seq 600); do test "$(ready)" = 0 && break; sleep 0.2; done
echo "waiting $(ready)"
sleep 2; watch
for file in gap archived-until; do
  test "$(date -d "$(cat $state/$file)" +%s)" -le "$began" && echo "$file is of before"
done
away --delete
order; shipshape-pgbackrest --configuration /tmp/outage run && test ! -e $state/gap
echo "status $?"
watch; watch
shipshape-pgbackrest drop 2> /dev/null
shipshape-pgbackrest restore > /dev/null
port=$(grep -Po '^port = \K.*' /etc/postgresql/*/restored/conf.d/zz-side.conf)
test "$(sql -c 'SELECT count(*), max(id) FROM orders')" = "$(sql -p "$port" -c 'SELECT count(*), max(id) FROM orders')" && echo "restored all"
shipshape-pgbackrest drop
cat /tmp/received
