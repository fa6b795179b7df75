#!/bin/bash
# Switches an app between its colours while wrk asks for it: `switch.sh keep-alive|close`. Fails when a request is lost.
set -eu -o pipefail
grep --quiet coloured.test /etc/hosts || echo "127.0.0.1 coloured.test" >> /etc/hosts
live=/var/lib/shipshape/live
mkdir --parents $live
port() { curl --silent --fail --insecure https://coloured.test/ | grep --only-matching '"port": [0-9]*'; }
rm --force $live/coloured.green && systemctl reload traefik
wrk --threads 2 --connections 4 --duration 5s --header "Connection: $1" https://coloured.test/ > /tmp/wrk &
load=$!
switches=0
while kill -0 $load 2>/dev/null; do
  touch $live/coloured.green && systemctl reload traefik
  # It is in force when the reload returns.
  test "$(port)" = '"port": 20011'
  rm $live/coloured.green && systemctl reload traefik
  test "$(port)" = '"port": 20010'
  switches=$((switches + 2))
done
wait $load
cat /tmp/wrk
if grep --extended-regexp 'Non-2xx|Socket errors' /tmp/wrk; then exit 1; fi
requests=$(grep --only-matching --perl-regexp '^\s+\K[0-9]+(?= requests in)' /tmp/wrk)
echo "$requests requests, $switches switches"
test "$requests" -gt 100 # a busy machine makes few
test "$switches" -ge 2
