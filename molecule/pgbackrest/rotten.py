#!/usr/bin/env python3
"""An object of the newest full backup that is not what it was, and is put back; lines of a word and of what is found.

Signed here, since curl signs no request for S3 before 7.75.
"""

import datetime
import hashlib
import hmac
import http.client
import os
import re
import subprocess

with open("/etc/pgbackrest/pgbackrest.conf") as settings:
    VALUES = dict(re.findall(r"^repo1-([\w-]+)=(.*)$", settings.read(), re.MULTILINE))


def s3(method: str, path: str, body: bytes = b"") -> bytes:
    now = datetime.datetime.utcnow().strftime("%Y%m%dT%H%M%SZ")
    scope = [now[:8], VALUES["s3-region"], "s3", "aws4_request"]
    digest = hashlib.sha256(body).hexdigest()
    headers = {"host": VALUES["s3-endpoint"], "x-amz-content-sha256": digest, "x-amz-date": now}
    names = ";".join(headers)
    lines = [f"{name}:{value}" for name, value in headers.items()]
    request = "\n".join([method, path, "", *lines, "", names, digest])
    key = ("AWS4" + VALUES["s3-key-secret"]).encode()
    for part in scope:
        key = hmac.digest(key, part.encode(), "sha256")
    text = "\n".join(["AWS4-HMAC-SHA256", now, "/".join(scope), hashlib.sha256(request.encode()).hexdigest()])
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={VALUES['s3-key']}/{'/'.join(scope)}, SignedHeaders={names}, "
        f"Signature={hmac.new(key, text.encode(), 'sha256').hexdigest()}"
    )
    connection = http.client.HTTPSConnection(VALUES["s3-endpoint"])
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    content = answer.read()
    assert answer.status == 200, content
    return content


def run(*command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)


full = [line.split()[4] for line in run("shipshape-pgbackrest", "list").stdout.splitlines() if "  full  " in line][-1]
place = f"/{VALUES['s3-bucket']}{VALUES['path']}/backup/main/{full}/pg_data/PG_VERSION.lz4"
whole = s3("GET", place)
s3("PUT", place, os.urandom(len(whole)))
done = run("shipshape-pgbackrest", "run")
print(done.stdout + f"status {done.returncode}")
s3("PUT", place, whole)
print(f"then {run('shipshape-pgbackrest', 'run').returncode}")
