"""Runs migrations over the app's own connection settings."""

from logging.config import fileConfig

from alembic import context
from app.database import engine

fileConfig(context.config.config_file_name, disable_existing_loggers=False)

with engine.connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
