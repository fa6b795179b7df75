#!/bin/sh
# Packets to the store vanish in the middle of a backup, and come through again. The first word of each line is what it is of.
cd /
DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends iptables > /dev/null || exit 1
store=$(getent ahostsv4 s3.test | awk '{print $1; exit}')
away() { iptables "$1" OUTPUT --destination "$store" --jump DROP; }
trap 'away --delete 2> /dev/null; rm -f /srv/uploads/ballast' EXIT
before=$(shipshape-backup list)
head -c 200000000 /dev/urandom > /srv/uploads/ballast
export PYTHONPATH=/usr/local/lib/shipshape
began=$(date +%s)
# As the command does, but for the patience: five minutes of a test are long.
python3 -c '
import sys
from shipshape_backup import __main__ as program, store
store.ASK_EVERY, store.ASK_TIMEOUT, store.AWAY_AFTER = 2, 2, 20
sys.exit(program.main(["run"]))' > /tmp/outage 2>&1 & run=$!
# It has stored some, and has more to store: the packs of the paths are on their way.
for attempt in $(seq 200); do
  restic=$(pgrep -n -f '^restic backup .*/srv/uploads') && test "$(awk '/^read_bytes|^rchar/ {print $2; exit}' "/proc/$restic/io")" -gt 40000000 && break
  sleep 0.05
done
away --insert
wait $run
echo "status $?"
test $(($(date +%s) - began)) -lt 120 && echo "ended in time"
sed 's/^/said /' /tmp/outage
away --delete
test "$(shipshape-backup list)" = "$before" && echo "listed as before"
shipshape-backup run > /dev/null
echo "then $?"
