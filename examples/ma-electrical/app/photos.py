"""Move the photos that came from the old host's disk to the bucket, and note each: run it as often as you like."""

from __future__ import annotations

import os
from pathlib import Path

import psycopg

from app import storage

UPLOADS = Path("uploads")

with psycopg.connect(os.environ["DATABASE_URL"], connect_timeout=10, autocommit=True) as connection:
    rows = connection.execute("SELECT id, path FROM photos WHERE object_key IS NULL ORDER BY id").fetchall()
    for number, path in rows:
        file = UPLOADS / str(path).split("uploads/", 1)[-1]
        if not file.is_file():
            print(f"photo {number}: there is no {file}")
            continue
        key = str(file.relative_to(UPLOADS))
        storage.put(key, file.read_bytes())
        connection.execute("UPDATE photos SET object_key = %s WHERE id = %s", [key, number])
        print(f"photo {number}: {key}")
