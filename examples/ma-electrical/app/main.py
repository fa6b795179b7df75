"""The inventory's API, in small: login, work orders, photos."""

from __future__ import annotations

import hashlib
import hmac
import os
import time
import uuid
from typing import Any, Dict, List, Optional

import bcrypt
import psycopg
from fastapi import Depends, FastAPI, Header, HTTPException, Request, Response
from pydantic import BaseModel

from app import storage

SECRET = os.environ.get("SECRET_KEY", "").encode()
SESSION_SECONDS = 8 * 3600
app = FastAPI(title="MA Electrical Inventory", docs_url=None, redoc_url=None, openapi_url=None)


class Login(BaseModel):
    username: str
    password: str


class WorkOrder(BaseModel):
    customer: str


def query(statement: str, values: Optional[List[Any]] = None) -> List[Any]:
    with psycopg.connect(os.environ["DATABASE_URL"], connect_timeout=3) as connection:
        return connection.execute(statement, values).fetchall()


def signed(text: str) -> str:
    return text + "." + hmac.new(SECRET, text.encode(), hashlib.sha256).hexdigest()


def user(authorization: str = Header("")) -> str:
    """Whoever has logged in; nobody else sees anything but the health."""
    token = authorization.partition("Bearer ")[2]
    text = token.rpartition(".")[0]
    name, _, until = text.rpartition(".")
    if not hmac.compare_digest(signed(text).encode(), token.encode()) or not until.isdigit():
        raise HTTPException(401, "log in first")
    if int(until) < time.time():
        raise HTTPException(401, "log in again")
    return name


@app.get("/health")
def health() -> Dict[str, str]:
    try:
        query("SELECT 1 FROM work_orders LIMIT 1")
    except psycopg.Error as error:
        raise HTTPException(503, type(error).__name__) from error
    return {"status": "healthy"}


@app.post("/api/auth/login")
def login(said: Login) -> Dict[str, str]:
    found = query("SELECT password FROM users WHERE username = %s AND active", [said.username])
    if not found or not bcrypt.checkpw(said.password.encode(), found[0][0].encode()):
        raise HTTPException(401, "wrong name or password")
    return {"token": signed(f"{said.username}.{int(time.time()) + SESSION_SECONDS}")}


@app.post("/api/work-orders")
def create(said: WorkOrder, _user: str = Depends(user)) -> Dict[str, int]:
    return {"id": query("INSERT INTO work_orders (customer) VALUES (%s) RETURNING id", [said.customer])[0][0]}


@app.get("/api/work-orders")
def work_orders(_user: str = Depends(user)) -> List[Dict[str, Any]]:
    rows = query(
        "SELECT id, customer, (SELECT array_agg(photos.id ORDER BY photos.id) FROM photos WHERE work_order_id = "
        "work_orders.id) FROM work_orders ORDER BY id"
    )
    return [{"id": number, "customer": customer, "photos": photos or []} for number, customer, photos in rows]


def keep(order: int, content: bytes) -> int:
    key = f"work_orders/{order}/{uuid.uuid4().hex}.jpg"
    storage.put(key, content)
    values = [order, key, len(content)]
    found = query("INSERT INTO photos (work_order_id, object_key, bytes) VALUES (%s, %s, %s) RETURNING id", values)
    return int(found[0][0])


@app.post("/api/work-orders/{order}/photos")
async def upload(order: int, request: Request, _user: str = Depends(user)) -> Dict[str, Any]:
    content = await request.body()
    return {"id": keep(order, content), "bytes": len(content)}


@app.get("/api/photos/{number}")
def photo(number: int, _user: str = Depends(user)) -> Response:
    found = query("SELECT object_key FROM photos WHERE id = %s AND object_key IS NOT NULL", [number])
    if not found:
        raise HTTPException(404, "no such photo")
    return Response(storage.get(found[0][0]), media_type="image/jpeg")
