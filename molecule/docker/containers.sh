#!/usr/bin/env bash
# Says what the engine does and what a container may, on the droplet.
set -euo pipefail
docker info --format 'driver={{.LoggingDriver}} live={{.LiveRestoreEnabled}}'
docker rm --force shipshape-probe shipshape-peer >/dev/null 2>&1 || true
docker network rm shipshape-own >/dev/null 2>&1 || true
# The host's own Python, with what it loads; libgcc_s it loads only when a thread ends.
python=$(realpath /usr/bin/python3)
tar --create --dereference --absolute-names "$python" $(ldd "$python" | grep -o '/[^ ]*') /usr/lib/python3* \
  /lib/x86_64-linux-gnu/libgcc_s.so.1 | docker import - shipshape-probe >/dev/null
serve="docker run --detach"
$serve --name shipshape-probe --publish 8081:80 shipshape-probe "$python" -m http.server 80 >/dev/null
$serve --name shipshape-peer shipshape-probe "$python" -m http.server 80 >/dev/null
docker port shipshape-probe
docker inspect --format 'log={{json .HostConfig.LogConfig}}' shipshape-probe
probe() { docker exec shipshape-probe "$python" -c "$1" 2>&1 | tail -n 1; }
connect='import socket, sys; socket.create_connection(("%s", 80), 3); print("reached")'
for attempt in 1 2 3 4 5 6 7 8 9 10; do curl --silent --fail --output /dev/null http://127.0.0.1:8081/ && break; sleep 0.5; done
echo "published: $(curl --silent --max-time 3 --output /dev/null --write-out '%{http_code}' http://127.0.0.1:8081/)"
echo "proxies: $(pgrep --count docker-proxy || true)"
echo "privileges: $(grep NoNewPrivs "/proc/$(docker inspect --format '{{.State.Pid}}' shipshape-probe)/status" | tr -d '\t')"
echo "files: $(probe 'import resource; print(resource.getrlimit(resource.RLIMIT_NOFILE))')"
peer=$(docker inspect --format '{{.NetworkSettings.IPAddress}}' shipshape-peer)
echo "default bridge: $(probe "$(printf "$connect" "$peer")")"
docker network create shipshape-own >/dev/null
docker network connect shipshape-own shipshape-probe
docker network connect shipshape-own shipshape-peer
peer=$(docker inspect --format '{{(index .NetworkSettings.Networks "shipshape-own").IPAddress}}' shipshape-peer)
echo "own network: $(probe "$(printf "$connect" "$peer")")"
echo "process: $(probe 'import os; print(os.getuid(), open("/proc/self/uid_map").read().split())')"
systemctl restart docker
docker inspect --format 'running={{.State.Running}} restarts={{.RestartCount}}' shipshape-probe
echo "published after restart: $(curl --silent --max-time 3 --output /dev/null --write-out '%{http_code}' http://127.0.0.1:8081/)"
docker rm --force shipshape-probe shipshape-peer >/dev/null
docker network rm shipshape-own >/dev/null
systemctl is-enabled docker
# The unit may be started three times a minute, and this scenario changes its settings twice more.
systemctl reset-failed docker.service
