"""The zones of one account: DigitalOcean's API over HTTP on port 8000 of the loopback interface, and their name server.

The API answers as https://docs.digitalocean.com/reference/api/ has it, as far as domains and their records go, to who
brings the account's token. The name server says what records the API was given; all else it asks the lab's network.
"""

from __future__ import annotations

import json
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from dnslib import NS, QTYPE, RCODE, RR, SOA, TXT, A, DNSRecord
from dnslib.server import BaseResolver, DNSServer

ACCOUNT = json.loads(Path("/etc/lab/account.json").read_text(encoding="utf-8"))
TOKEN, ZONES, ADDRESS = ACCOUNT["token"], ACCOUNT["zones"], ACCOUNT["address"]
#: Docker's own, which knows the names of the lab.
LAB = "127.0.0.11"

records: dict[str, dict[int, dict[str, Any]]] = {zone: {} for zone in ZONES}
lock = threading.Lock()
last = 0


class Api(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status: int, content: object = None) -> None:
        body = b"" if content is None else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def answer_list(self, key: str, rows: list[dict[str, Any]]) -> None:
        query = parse_qs(urlsplit(self.path).query)
        page, size = (int(query.get(name, [str(usual)])[0]) for name, usual in (("page", 1), ("per_page", 20)))
        start = (page - 1) * size
        links = {}
        if start + size < len(rows):
            url = f"https://api.digitalocean.com{urlsplit(self.path).path}?page={page + 1}&per_page={size}"
            links = {"pages": {"next": url, "last": url}}
        self.answer(200, {key: rows[start : start + size], "links": links, "meta": {"total": len(rows)}})

    def handle_request(self) -> None:
        global last
        size = int(self.headers.get("Content-Length") or 0)
        given = json.loads(self.rfile.read(size)) if size else {}
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer(401, {"id": "Unauthorized", "message": "Unable to authenticate you"})
        parts = urlsplit(self.path).path.strip("/").split("/")
        missing = {"id": "not_found", "message": "The resource you were accessing could not be found."}
        if parts[:2] != ["v2", "domains"] or len(parts) > 5 or (len(parts) > 3 and parts[3] != "records"):
            return self.answer(404, missing)
        if len(parts) == 2:
            return self.answer_list("domains", [{"name": zone, "ttl": 1800, "zone_file": ""} for zone in ZONES])
        zone = parts[2]
        if zone not in records:
            return self.answer(404, missing)
        if len(parts) == 3:
            return self.answer(200, {"domain": {"name": zone, "ttl": 1800, "zone_file": ""}})
        with lock:
            if self.command == "POST" and len(parts) == 4:
                last += 1
                records[zone][last] = {"ttl": 1800, **given, "id": last}
                return self.answer(201, {"domain_record": records[zone][last]})
            if self.command == "GET" and len(parts) == 4:
                return self.answer_list("domain_records", list(records[zone].values()))
            number = int(parts[4]) if len(parts) == 5 and re.fullmatch(r"\d+", parts[4]) else 0
            if number in records[zone]:
                if self.command == "DELETE":
                    del records[zone][number]
                    return self.answer(204)
                return self.answer(200, {"domain_record": records[zone][number]})
        return self.answer(404, missing)

    do_GET = do_POST = do_PUT = do_DELETE = handle_request


def full_name(zone: str, name: str) -> str:
    """A record's name as clients give it: below the zone, with the zone, or with a dot at its end."""
    name = name.rstrip(".")
    return zone if name in ("@", "", zone) else name if name.endswith("." + zone) else f"{name}.{zone}"


class Names(BaseResolver):
    def resolve(self, request: DNSRecord, handler: Any) -> DNSRecord:
        name, kind = str(request.q.qname).rstrip(".").lower(), QTYPE[request.q.qtype]
        zone = next((zone for zone in ZONES if name == zone or name.endswith("." + zone)), "")
        if not zone or (kind in ("A", "AAAA") and name != f"ns1.{zone}"):
            return forwarded(request)
        reply = request.reply()
        soa = RR(zone, QTYPE.SOA, ttl=5, rdata=SOA(f"ns1.{zone}", f"hostmaster.{zone}", (last, 60, 60, 60, 5)))
        with lock:
            texts = [
                row["data"]
                for row in records[zone].values()
                if row["type"] == "TXT" and full_name(zone, row["name"]) == name
            ]
        if kind == "SOA" and name == zone:
            reply.add_answer(soa)
        elif kind == "NS" and name == zone:
            reply.add_answer(RR(zone, QTYPE.NS, ttl=5, rdata=NS(f"ns1.{zone}")))
        elif kind == "A" and name == f"ns1.{zone}":
            reply.add_answer(RR(name, QTYPE.A, ttl=5, rdata=A(ADDRESS)))
        elif kind == "TXT" and texts:
            for text in texts:
                reply.add_answer(RR(name, QTYPE.TXT, ttl=5, rdata=TXT(text)))
        else:
            if not texts and name not in (zone, f"ns1.{zone}"):
                reply.header.rcode = RCODE.NXDOMAIN
            reply.add_auth(soa)
        return reply


def forwarded(request: DNSRecord) -> DNSRecord:
    try:
        return DNSRecord.parse(request.send(LAB, 53, timeout=5))
    except (OSError, socket.timeout):
        reply = request.reply()
        reply.header.rcode = RCODE.SERVFAIL
        return reply


if __name__ == "__main__":
    for tcp in (False, True):
        DNSServer(Names(), address="0.0.0.0", port=53, tcp=tcp).start_thread()
    ThreadingHTTPServer(("127.0.0.1", 8000), Api).serve_forever()
