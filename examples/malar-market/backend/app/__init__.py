"""Malar Market's digital ledger: who brought how many flowers to the market, and what they are owed."""

__version__ = "1.0.0"
