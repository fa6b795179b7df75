"""Looks after the PostgreSQL databases of this host."""
