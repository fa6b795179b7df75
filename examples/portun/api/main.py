"""The API of the plan, in small: REST, functions, tokens, a realtime socket."""

from __future__ import annotations

import os
import random
from typing import Any, Dict, List

import psycopg
from fastapi import FastAPI, HTTPException, WebSocket, WebSocketDisconnect

VERSION = os.environ.get("API_VERSION", "1")
#: The share of requests that fail, for whoever wants to see a bad release.
FAULTS = float(os.environ.get("FAULTS", "0"))
app = FastAPI(title="Portun", version=VERSION)


def rows(query: str) -> List[Any]:
    with psycopg.connect(os.environ["DATABASE_URL"], connect_timeout=3) as connection:
        return connection.execute(query).fetchall()


@app.get("/health")
def health() -> Dict[str, str]:
    try:
        rows("SELECT 1 FROM visitor_records LIMIT 1")
    except psycopg.Error as error:
        raise HTTPException(503, type(error).__name__) from error
    return {"status": "healthy", "version": VERSION, "environment": os.environ.get("ENVIRONMENT", "")}


@app.get("/rest/v1/visitor_records")
def visitors() -> Dict[str, Any]:
    if random.random() < FAULTS:
        raise HTTPException(500, "a fault")
    return {"count": rows("SELECT count(*) FROM visitor_records")[0][0], "version": VERSION}


@app.post("/auth/v1/token")
def token() -> Dict[str, str]:
    return {"token_type": "bearer"}


@app.post("/functions/v1/validate-qr")
def validate() -> Dict[str, bool]:
    return {"valid": True}


@app.websocket("/realtime/v1")
async def realtime(socket: WebSocket) -> None:
    await socket.accept()
    try:
        while True:
            await socket.send_text(f"{VERSION} {await socket.receive_text()}")
    except WebSocketDisconnect:
        return
