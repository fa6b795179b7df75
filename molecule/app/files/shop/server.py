"""A shop of the standard library, which tells what it finds around it."""

import json
import os
import random
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import tiny

VERSION = Path("VERSION").read_text().strip()


def may_write(path):
    try:
        with open(path, "w"):
            return True
    except OSError:
        return False


def may_read(path):
    try:
        with open(path):
            return True
    except OSError:
        return False


class Shop(BaseHTTPRequestHandler):
    def do_GET(self):
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        if url.path == "/health":
            return self.answer(500 if "BROKEN" in os.environ else 200, {"status": "ok", "version": VERSION})
        if url.path == "/load":
            # As many errors as a release may have that its health path does not know of.
            flaky = "FLAKY" in os.environ and random.random() < 0.05
            return self.answer(500 if flaky else 200, {"version": VERSION})
        if url.path == "/hold":
            # An answer that takes as long as a WebSocket's.
            time.sleep(float(query.get("seconds", "1")))
            return self.answer(200, {"version": VERSION})
        if url.path == "/exit":
            os._exit(1)
        return self.answer(
            200,
            {
                "version": VERSION,
                "tiny": tiny.NAME,
                "user": os.getuid(),
                "environment": dict(os.environ),
                "folder": os.getcwd(),
                "virtualenv": os.path.realpath(sys.prefix),
                "writes": {path: may_write(path) for path in query.get("write", "").split(",") if path},
                "reads": {path: may_read(path) for path in query.get("read", "").split(",") if path},
            },
        )

    def log_message(self, format, *arguments):
        if not self.path.startswith("/load"):
            super().log_message(format, *arguments)

    def answer(self, status, content):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if "CRASH" in os.environ:
    # As careless as an app can be with its settings.
    sys.exit(f"cannot start with {dict(os.environ)}")
print(f"shop {VERSION} listens")
ThreadingHTTPServer((os.environ["HOST"], int(sys.argv[sys.argv.index("--port") + 1])), Shop).serve_forever()
