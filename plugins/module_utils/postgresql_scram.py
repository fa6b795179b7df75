"""PostgreSQL's SCRAM-SHA-256 verifiers, computed here.

The server never sees the password then: not in its log, not in pg_stat_statements, not in a process list. And a stored
verifier can be compared with the wanted password, so that a second run changes nothing.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import stringprep
import unicodedata
from typing import Optional, Tuple

#: The server's own default (scram_iterations).
ITERATIONS = 4096
SALT_BYTES = 16
MECHANISM = "SCRAM-SHA-256"

_PROHIBITED = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
    stringprep.in_table_a1,
)


def saslprep(password: str) -> str:
    """RFC 4013 as the server applies it: a password it prohibits is used unchanged (src/common/saslprep.c)."""
    if all(ord(char) < 128 for char in password):
        return password
    mapped = "".join(
        " " if stringprep.in_table_c12(char) else char for char in password if not stringprep.in_table_b1(char)
    )
    text = unicodedata.normalize("NFKC", mapped)
    if not text or any(table(char) for char in text for table in _PROHIBITED):
        return password
    if any(stringprep.in_table_d1(char) for char in text):
        ends_right = stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1])
        if not ends_right or any(stringprep.in_table_d2(char) for char in text):
            return password
    return text


def _keys(password: str, salt: bytes, iterations: int) -> Tuple[bytes, bytes]:
    salted = hashlib.pbkdf2_hmac("sha256", saslprep(password).encode("utf-8"), salt, iterations)
    client_key = hmac.new(salted, b"Client Key", hashlib.sha256).digest()
    server_key = hmac.new(salted, b"Server Key", hashlib.sha256).digest()
    return hashlib.sha256(client_key).digest(), server_key


def verifier(password: str, salt: Optional[bytes] = None, iterations: int = ITERATIONS) -> str:
    """What PostgreSQL stores for this password."""
    salt = os.urandom(SALT_BYTES) if salt is None else salt
    stored_key, server_key = _keys(password, salt, iterations)
    salted, stored, server = (base64.b64encode(part).decode("ascii") for part in (salt, stored_key, server_key))
    return f"{MECHANISM}${iterations}:{salted}${stored}:{server}"


def matches(password: str, stored: Optional[str]) -> bool:
    """Whether the stored verifier is one of this password. An md5 hash never is: it is to be replaced."""
    if not stored or not stored.startswith(MECHANISM + "$"):
        return False
    try:
        _, parameters, keys = stored.split("$")
        iterations, salt = parameters.split(":")
        stored_key, server_key = (base64.b64decode(key) for key in keys.split(":"))
        expected = _keys(password, base64.b64decode(salt), int(iterations))
    except ValueError:
        return False
    return hmac.compare_digest(expected[0], stored_key) and hmac.compare_digest(expected[1], server_key)
