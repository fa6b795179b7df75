"""The web process: queues queries, hands out their results, and says where it was asked."""

from __future__ import annotations

import json
import os
from typing import Any, Callable, Dict, Iterable, List

from work import celery, query, store

VERSION = os.environ.get("SHIPSHAPE_RELEASE", "")
Start = Callable[[str, List[Any]], Any]


def answer(method: str, path: str) -> Any:
    if path == "/health":
        return "OK" if store.ping() else None
    if path == "/api/v1/query" and method == "POST":
        return {"id": query.delay(12).id}
    if path.startswith("/api/v1/query/"):
        found = celery.AsyncResult(path.rsplit("/", 1)[1])
        return {"state": found.state, "result": found.result if found.successful() else None}
    if path == "/api/v1/refresh":
        return {
            "asked": [float(moment) for moment in store.lrange("asked", 0, -1)],
            "done": int(store.get("refreshed") or 0),
        }
    return None


def application(environ: Dict[str, Any], start: Start) -> Iterable[bytes]:
    """As the real one does behind a proxy: what X-Script-Name says is taken off the path, if it is still there."""
    script, path = environ.get("HTTP_X_SCRIPT_NAME", ""), environ.get("PATH_INFO", "/")
    if script and (path == script or path.startswith(script + "/")):
        path = path[len(script) :] or "/"
    said: Any = {"version": VERSION, "script_name": script, "path": path} if path == "/" else None
    said = said or answer(environ["REQUEST_METHOD"], path)
    text = said if isinstance(said, str) else json.dumps(said)
    kind = "text/plain" if isinstance(said, str) else "application/json"
    start("200 OK" if said is not None else "404 Not Found", [("Content-Type", kind)])
    return [text.encode()]
