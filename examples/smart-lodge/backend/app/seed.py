"""The first admin: python -m app.seed"""

from __future__ import annotations

import os

from .database import rows
from .passwords import hashed


def main() -> None:
    admin = {"email": os.environ["ADMIN_EMAIL"], "password": hashed(os.environ["ADMIN_PASSWORD"])}
    rows("INSERT INTO users (email, password_hash, is_admin) VALUES (:email, :password, true)", admin)


if __name__ == "__main__":
    main()
