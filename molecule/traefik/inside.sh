#!/bin/bash
# What must hold on the droplet itself; the first line that does not is the last one printed.
set -eux -o pipefail
systemctl is-enabled traefik
systemctl is-active traefik
test "$(stat -c '%U %a' "/proc/$(systemctl show --value --property MainPID traefik)")" = "traefik 555"
systemd-analyze security traefik.service --no-pager | tail -n 1
exposure=$(systemd-analyze security traefik.service --no-pager | grep -oP 'exposure level for traefik.service: \K[0-9]+\.[0-9]')
awk -v found="$exposure" 'BEGIN { exit !(found <= 3.0) }'
grep -x 'CapEff:.*0000000000000400' "/proc/$(systemctl show --value --property MainPID traefik)/status"
curl --silent --fail http://127.0.0.1:8082/metrics | grep 'traefik_service_requests_total.*service="api@file"' >/dev/null
test "$(stat -Lc '%U %a' /etc/shipshape/tls/api/privkey.pem)" = "root 600"
test "$(stat -c '%U:%G %a' /etc/traefik/dynamic/tls-api.yml)" = "root:traefik 640"
tail -n 1 /var/log/traefik/access.log | python3 -c 'import json, sys; assert json.loads(sys.stdin.read())["DownstreamStatus"]'
# After a rotation it writes to the new file, and to that alone.
rm -f /var/log/traefik/access.log.1
logrotate --force /etc/logrotate.d/traefik
curl --silent --insecure --output /dev/null --resolve api.test:443:127.0.0.1 https://api.test/rotated
for _ in $(seq 20); do grep --quiet '"/rotated"' /var/log/traefik/access.log && break; sleep 0.1; done
grep --quiet '"/rotated"' /var/log/traefik/access.log
! grep --quiet '"/rotated"' /var/log/traefik/access.log.1
stat -c '%U %a' /var/log/traefik/access.log
# What was refused stands in a log of its own, which fail2ban reads; also after the rotation.
curl --silent --insecure --output /dev/null --resolve api.test:443:127.0.0.1 https://api.test/.env
for _ in $(seq 100); do grep --quiet '"RequestPath":"/.env"' /var/log/traefik-refused.log && break; sleep 0.1; done
grep --quiet '"RequestPath":"/.env"' /var/log/traefik-refused.log
! grep --quiet '"DownstreamStatus":200' /var/log/traefik-refused.log
