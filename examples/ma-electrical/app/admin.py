"""Insert the admin, once: later runs leave the account and its password alone."""

from __future__ import annotations

import os

import psycopg

with psycopg.connect(os.environ["DATABASE_URL"], connect_timeout=10) as connection:
    connection.execute(
        "INSERT INTO users (username, full_name, password, role) VALUES ('admin', 'Administrator', %s, 'admin') "
        "ON CONFLICT (username) DO NOTHING",
        [os.environ["ADMIN_PASSWORD_HASH"]],
    )
