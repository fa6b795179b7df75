"""Requests a second through our proxy, against the same program with the least configuration that does the same.

Both run at once on the droplet, with the same certificate and TLS, and lead to the same process of the app over kept
connections; they are measured in turns. The bare one keeps a log, too, and the bare Traefik its metrics: a deploy and
the operator cannot be without.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from tests.bench import kinds, load
from tests.bench.commands import BenchError
from tests.bench.ground import BARE_PORT, DROPLET, Ground
from tests.bench.report import Row, faster
from tests.lab import droplet
from tests.lab.engine import docker, stage

LIMIT = 0.95
ROUNDS, SECONDS = 20, 2
KIND = "python"
FOLDER = "/var/lib/bench-bare"
UNIT = "bench-bare"

NGINX = """user www-data;
worker_processes auto;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
    access_log {folder}/access.log combined;
    upstream app {{ server {upstream}; keepalive 32; }}
    server {{
        listen {port} ssl;
        ssl_protocols TLSv1.3;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        location / {{
            proxy_pass http://app;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
    }}
}}
"""


def measure(ground: Ground, proxy: str) -> Iterator[Row]:
    ground.stand_behind(proxy)
    tls = f"/etc/shipshape/tls/{kinds.name_of(KIND)}"
    where = {"certificate": f"{tls}/fullchain.pem", "key": f"{tls}/privkey.pem", "upstream": upstream()}
    files, command = BARE[proxy](**where)
    droplet.put(DROPLET, {f"{FOLDER[1:]}/{name}": (text.encode(), 0o600) for name, text in files.items()})
    docker("exec", DROPLET, "systemd-run", "--quiet", f"--unit={UNIT}", "--property=LimitNOFILE=65536", *command)
    ours: list[float] = []
    bare: list[float] = []
    domain = kinds.domain_of(KIND)
    urls = ((f"https://{domain}/", ours), (f"https://{domain}:{BARE_PORT}/", bare))
    try:
        with stage(f"requests a second through {proxy}, ours and bare in turns"):
            wait_for(BARE_PORT, domain)
            for url, _ in urls:
                load.flat_out(url, 2)
            for turn in range(ROUNDS):
                # Who begins takes turns, too.
                for url, rates in urls if turn % 2 == 0 else reversed(urls):
                    seen = load.flat_out(url, SECONDS)
                    if seen.failed:
                        raise BenchError(f"{url}: {', '.join(seen.faults)}")
                    rates.append(seen.rate)
    finally:
        docker("exec", DROPLET, "systemctl", "stop", UNIT)
    yield faster(f"requests/s: {KIND}, {proxy}", ours, f"bare {proxy}", bare, LIMIT)


def upstream() -> str:
    """Where the release that is live listens."""
    name = kinds.name_of(KIND)
    colour = f"test -e /var/lib/shipshape/live/{name}.green && echo green || echo blue"
    process = f"$(systemctl show --value --property=MainPID {name}@$({colour}).service)"
    sockets = f"ss --listening --tcp --numeric --no-header --processes | grep pid={process},"
    return docker("exec", DROPLET, "sh", "-euc", sockets).split()[3]


def wait_for(port: int, domain: str) -> None:
    probe = "curl --silent --insecure --fail --output /dev/null --retry 20 --retry-delay 1 --retry-all-errors"
    docker("exec", DROPLET, "sh", "-euc", f"{probe} --resolve {domain}:{port}:127.0.0.1 https://{domain}:{port}/")


def bare_nginx(certificate: str, key: str, upstream: str) -> tuple[dict[str, str], list[str]]:
    text = NGINX.format(folder=FOLDER, port=BARE_PORT, certificate=certificate, key=key, upstream=upstream)
    return {"nginx.conf": text}, ["nginx", "-c", f"{FOLDER}/nginx.conf", "-g", "daemon off;"]


def bare_traefik(certificate: str, key: str, upstream: str) -> tuple[dict[str, str], list[str]]:
    static = {
        "entryPoints": {"websecure": {"address": f":{BARE_PORT}"}, "traefik": {"address": "127.0.0.1:8083"}},
        "providers": {"file": {"filename": f"{FOLDER}/dynamic.yml"}},
        "accessLog": {"filePath": f"{FOLDER}/access.log", "format": "json"},
        "metrics": {"prometheus": {}},
    }
    dynamic = {
        "tls": {
            "certificates": [{"certFile": certificate, "keyFile": key}],
            "options": {"default": {"minVersion": "VersionTLS13"}},
        },
        "http": {
            "routers": {"app": {"rule": "PathPrefix(`/`)", "service": "app", "tls": {}}},
            "services": {"app": {"loadBalancer": {"servers": [{"url": f"http://{upstream}"}]}}},
        },
    }
    files = {"static.yml": json.dumps(static), "dynamic.yml": json.dumps(dynamic)}
    return files, ["/usr/local/bin/traefik", f"--configfile={FOLDER}/static.yml"]


BARE = {"nginx": bare_nginx, "traefik": bare_traefik}
