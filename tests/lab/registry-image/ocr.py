"""An OCR-shaped service of the standard library, as an image brings it along, with a worker and a scheduler."""

import fcntl
import json
import os
import re
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

HERE = Path(__file__).parent
VERSION, WAY = (HERE / "VERSION").read_text().split()
LARGEST = 20 * 1024 * 1024
scans = 0


def may_write(path: str) -> bool:
    try:
        with open(path, "w"):
            return True
    except OSError:
        return False


def privileges() -> dict[str, str]:
    """What the kernel says this process may."""
    status = Path("/proc/self/status").read_text()
    return dict(re.findall(r"^(CapBnd|CapEff|NoNewPrivs):\s*(\S+)$", status, re.MULTILINE))


class Scanner(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        if url.path == "/health":
            self.answer(500 if WAY == "sick" else 200, {"status": WAY, "version": VERSION})
        elif url.path == "/metrics":
            self.answer(200, f"ocr_scans_total {scans}\n", "text/plain; version=0.0.4")
        elif url.path == "/hold":
            # An answer that takes as long as a WebSocket's.
            time.sleep(float(query.get("seconds", "1")))
            self.answer(200, {"version": VERSION})
        elif url.path == "/load":
            self.answer(200, {"version": VERSION})
        else:
            self.answer(
                200,
                {
                    "version": VERSION,
                    "user": os.getuid(),
                    "environment": dict(os.environ),
                    "arguments": sys.argv[1:],
                    "privileges": privileges(),
                    "writes": {path: may_write(path) for path in query.get("write", "").split(",") if path},
                    "host": os.uname().nodename,
                },
            )

    def do_POST(self) -> None:
        global scans
        size = int(self.headers.get("Content-Length", "0"))
        if size > LARGEST:
            self.close_connection = True
            return self.answer(413, {"error": "20 MB at most"})
        left = size
        while left:
            left -= len(self.rfile.read(min(left, 65536)))
        scans += 1
        return self.answer(200, {"bytes": size, "version": VERSION})

    def log_message(self, format: str, *arguments: object) -> None:
        if not self.path.startswith("/load"):
            super().log_message(format, *arguments)

    def answer(self, status: int, content: object, kind: str = "application/json") -> None:
        body = (content if isinstance(content, str) else json.dumps(content)).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256


def note(name: str, text: str) -> None:
    with open(f"/data/{name}", "a") as log:
        log.write(text + "\n")


def migrate() -> None:
    if "FAIL_MIGRATION" in os.environ:
        sys.exit(f"cannot migrate {os.environ.get('SECRET_KEY')}")
    note("migrations", VERSION)


def worker() -> None:
    """Is always at something that takes a second more than it is given notice of its end."""

    def end(*_: object) -> None:
        time.sleep(1)
        note("worker", f"finished {VERSION}")
        sys.exit(0)

    signal.signal(signal.SIGTERM, end)
    while True:
        time.sleep(60)


def beat() -> None:
    with open("/data/beat.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # two at once would be a fault
        note("beat", VERSION)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        while True:
            time.sleep(60)


def moment() -> None:
    note("moments", f"{sys.argv[2]} {VERSION}")


OTHERS = {"migrate": migrate, "worker": worker, "beat": beat, "moment": moment}

if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in OTHERS:
        OTHERS[sys.argv[1]]()
        sys.exit(0)
    if WAY == "crash" or "CRASH" in os.environ:
        # As careless as an app can be with its settings.
        sys.exit(f"cannot start with {dict(os.environ)}")
    server = Server((os.environ["HOST"], int(os.environ["PORT"])), Scanner)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"ocr {VERSION} listens", flush=True)
    server.serve_forever()
    print(f"ocr {VERSION} ends", flush=True)
