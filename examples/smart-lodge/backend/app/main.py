"""The API: uvicorn app.main:app"""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path
from typing import Any, Dict, List

import redis
from fastapi import Depends, FastAPI, HTTPException, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import FileResponse
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError

from . import __version__, cache, sessions
from .database import rows
from .passwords import fits

#: A folder that all releases share.
UPLOADS = Path("uploads")
app = FastAPI(title="Smart Lodge Budget", version=__version__)


class Login(BaseModel):
    email: str
    password: str


@app.get("/health")
def health() -> Dict[str, str]:
    """Healthy is who reaches the database with its tables, and both of its stores in Redis."""
    try:
        rows("SELECT 1 FROM users LIMIT 1")
        sessions.ping()
        cache.ping()
    except (SQLAlchemyError, redis.RedisError) as error:
        raise HTTPException(503, type(error).__name__) from error
    return {"status": "healthy", "version": __version__, "environment": os.environ.get("ENVIRONMENT", "")}


@app.post("/api/v1/login")
def login(given: Login) -> Dict[str, str]:
    found = rows("SELECT password_hash FROM users WHERE email = :email", {"email": given.email})
    if not found or not fits(given.password, found[0].password_hash):
        raise HTTPException(401, "the email or the password is wrong")
    return {"access_token": sessions.begin(given.email), "token_type": "bearer"}


@app.get("/api/v1/me")
def me(email: str = Depends(sessions.user)) -> Dict[str, str]:
    return {"email": email}


@app.post("/api/v1/logout", dependencies=[Depends(sessions.end)])
def logout() -> Dict[str, str]:
    return {"session": "ended"}


@app.post("/api/v1/documents/{name}", status_code=201)
async def upload(name: str, request: Request, email: str = Depends(sessions.user)) -> Dict[str, Any]:
    # Written under its number, and there at once or not at all.
    kept = await asyncio.to_thread(
        rows,
        "INSERT INTO documents (user_id, file_name) SELECT id, :name FROM users WHERE email = :email RETURNING id",
        {"name": name, "email": email},
    )
    path = UPLOADS / str(kept[0].id)
    with path.with_suffix(".part").open("wb") as stream:
        async for chunk in request.stream():
            stream.write(chunk)
    path.with_suffix(".part").rename(path)
    return {"id": kept[0].id, "bytes": path.stat().st_size}


@app.get("/api/v1/documents/{number}", dependencies=[Depends(sessions.user)])
def document(number: int) -> FileResponse:
    found = rows("SELECT file_name FROM documents WHERE id = :number", {"number": number})
    if not found:
        raise HTTPException(404, "no such document")
    return FileResponse(UPLOADS / str(number), filename=found[0].file_name)


@app.get("/api/v1/analysis")
def analysis() -> Dict[str, Any]:
    return cache.kept("analysis", lambda: {"documents": rows("SELECT count(*) FROM documents")[0][0]})


@app.get("/api/v1/languages")
def languages() -> List[str]:
    """What text is recognised in."""
    said = subprocess.run(["tesseract", "--list-langs"], capture_output=True, text=True, check=True).stdout
    return said.split("\n")[1:]


@app.get("/api/v1/extraction")
async def extraction(seconds: int) -> Dict[str, int]:
    """Takes as long as the reading of a thick document does."""
    await asyncio.sleep(min(seconds, 590))
    return {"seconds": seconds}


@app.websocket("/api/ws")
async def progress(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_json({"status": "ready"})
    try:
        while True:
            await socket.send_json({"status": "done", "document": await socket.receive_text()})
    except WebSocketDisconnect:
        return
