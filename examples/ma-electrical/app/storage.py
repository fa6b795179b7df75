"""The bucket of the photos."""

from __future__ import annotations

import os
from typing import Any

import boto3
from botocore.client import Config

BUCKET = os.environ.get("SPACES_BUCKET", "")


def client() -> Any:
    return boto3.client(
        "s3",
        endpoint_url=os.environ["SPACES_ENDPOINT"],
        region_name=os.environ.get("SPACES_REGION", "us-east-1"),
        aws_access_key_id=os.environ["SPACES_KEY"],
        aws_secret_access_key=os.environ["SPACES_SECRET"],
        config=Config(
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


def put(key: str, content: bytes) -> None:
    client().put_object(Bucket=BUCKET, Key=key, Body=content)


def get(key: str) -> bytes:
    return bytes(client().get_object(Bucket=BUCKET, Key=key)["Body"].read())
