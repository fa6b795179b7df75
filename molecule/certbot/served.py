"""Prints the serial that each name is served with, after verifying the chain with the test authority's root only."""

from __future__ import annotations

import json
import socket
import ssl
import sys


def serial(address: str, name: str, root: str) -> str:
    context = ssl.create_default_context(cafile=root)
    with socket.create_connection((address, 443), 10) as raw, context.wrap_socket(raw, server_hostname=name) as tls:
        return str((tls.getpeercert() or {})["serialNumber"])


address, root, *names = sys.argv[1:]
print(json.dumps({name: serial(address, name, root) for name in names}))
