"""Passwords as bcrypt hashes."""

from __future__ import annotations

from passlib.context import CryptContext

_context = CryptContext(schemes=["bcrypt"])


def hashed(password: str) -> str:
    return str(_context.hash(password))


def fits(password: str, password_hash: str) -> bool:
    return bool(_context.verify(password, password_hash))
