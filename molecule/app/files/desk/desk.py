"""A web process, a worker and a scheduler that say who they are and how they ended."""

import fcntl
import json
import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

STATE = Path(os.environ["STATE_DIRECTORY"])
RELEASE = os.environ["SHIPSHAPE_RELEASE"]


def note(name, text):
    with open(STATE / name, "a", encoding="utf-8") as log:
        log.write(text + "\n")


class Desk(BaseHTTPRequestHandler):
    def do_GET(self):
        ready = self.path == "/ready"
        said = {"release": RELEASE, "built": Path("built").read_text().strip(), "shared": sorted(os.listdir("uploads"))}
        body = b"ready to serve" if ready else json.dumps(said).encode()
        self.send_response(202 if ready else 200)
        self.send_header("Content-Type", "text/plain" if ready else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def web():
    Path("uploads", RELEASE).touch()
    ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Desk).serve_forever()


def worker():
    if "CRASH" in os.environ:
        sys.exit(f"no worker with {os.environ['SECRET_KEY']}")

    def end(*_):
        time.sleep(2)  # the task it is at
        note("worker", f"finished {RELEASE}")
        sys.exit(0)

    signal.signal(signal.SIGTERM, end)
    while True:
        time.sleep(60)


def beat():
    with open(STATE / "beat.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # two at once would be a fault
        note("beat", RELEASE)
        time.sleep(10**6)


def moment():
    if os.environ.get("FAIL") == sys.argv[2]:
        sys.exit(f"failed at {sys.argv[2]} with {os.environ['SECRET_KEY']}")
    note("moments", f"{sys.argv[2]} {RELEASE}")


{"web": web, "worker": worker, "beat": beat, "moment": moment}[sys.argv[1]]()
