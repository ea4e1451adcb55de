"""An object store for tests: moto's server on a free port of this machine, which speaks the protocol of S3."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

SECRET = "a-secret-that-nobody-may-see"


@contextmanager
def object_store(log: Path) -> Iterator[dict[str, str]]:
    """Run a store; gives the environment variables with which it is reached."""
    from s3fs import S3FileSystem

    S3FileSystem.clear_instance_cache()  # one made with other variables
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with log.open("wb") as stream:
        server = subprocess.Popen(command, stdout=stream, stderr=stream)
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_for(url, server, log)
            yield {
                "AWS_ENDPOINT_URL": url,
                "AWS_ACCESS_KEY_ID": "testing",
                "AWS_SECRET_ACCESS_KEY": SECRET,
                "AWS_DEFAULT_REGION": "us-east-1",
            }
        finally:
            server.kill()
            server.wait()


def make_bucket(environment: dict[str, str], name: str) -> None:
    client(environment).create_bucket(Bucket=name)


def client(environment: dict[str, str]) -> Any:
    """A client of the store that is not the one under test."""
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        region_name=environment["AWS_DEFAULT_REGION"],
    )


def keys(environment: dict[str, str], bucket: str, prefix: str = "") -> list[str]:
    """The names of all objects of a bucket that begin so."""
    pages = client(environment).get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return [found["Key"] for page in pages for found in page.get("Contents", [])]


def _wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(1200):
        if server.poll() is not None:
            raise RuntimeError(f"the store ended: {log.read_text()}")
        try:
            urlopen(f"{url}/moto-api/", timeout=5).close()
            return
        except (URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError(f"the store did not answer within two minutes: {log.read_text()}")
