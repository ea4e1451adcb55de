"""A server of the report pages and the site on this machine's loopback address, for the links in Prefect's UI."""

from __future__ import annotations

import logging
import os
from functools import partial
from html import escape
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, unquote, urlsplit

logger = logging.getLogger(__name__)

PORT = 4201
SERVED = ("reports", "site")
"""The folders of a home whose files are served."""


def reports_url() -> str:
    """Where the folders are served: $OVEREDIT_REPORTS_URL, or by `overedit ui`."""
    return (os.environ.get("OVEREDIT_REPORTS_URL") or f"http://127.0.0.1:{PORT}").rstrip("/")


def report_link(name: str) -> str:
    """The address of a run's report page."""
    return f"{reports_url()}/reports/{quote(name)}.html"


def reports_server(home: Path, port: int = PORT) -> ThreadingHTTPServer:
    """A server of the reports and the site of a home; their folders may be made later.

    Raises:
        OSError: The port is taken.
    """
    return ThreadingHTTPServer(("127.0.0.1", port), partial(_Handler, home=home.absolute()))


class _Handler(SimpleHTTPRequestHandler):
    """Answers GET and HEAD for the ordinary files below `SERVED`; nothing else exists."""

    server_version, sys_version = "overedit", ""

    def __init__(self, *arguments: Any, home: Path) -> None:
        self.home = home
        super().__init__(*arguments)

    def send_head(self) -> BytesIO | BinaryIO | None:
        """Send status and headers; gives what follows them."""
        known = {"127.0.0.1", "localhost", "::1", urlsplit(reports_url()).hostname}
        if urlsplit(f"//{self.headers.get('Host', '')}").hostname not in known:  # a name that a hostile page chose
            self.send_error(HTTPStatus.FORBIDDEN)
            return None
        path = unquote(urlsplit(self.path).path)
        if path == "/":
            return self._send(BytesIO(self._index()), "text/html; charset=utf-8")
        found = self._inside(path)
        if found is not None and found.is_dir() and not path.endswith("/"):
            self.send_response(HTTPStatus.MOVED_PERMANENTLY)
            self.send_header("Location", f"{quote(path)}/")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        found = self._inside(f"{path}index.html") if path.endswith("/") else found
        if found is None or not found.is_file():
            self.send_error(HTTPStatus.NOT_FOUND)
            return None
        return self._send(found.open("rb"), self.guess_type(str(found)))

    def _inside(self, path: str) -> Path | None:
        """The file or folder of a path, with all links followed; None if it is not in one of the folders served."""
        top, *parts = path[1:].split("/")
        if path[:1] != "/" or top not in SERVED or any(part.startswith(".") for part in parts):
            return None
        try:
            root = (self.home / top).resolve(strict=True)
            found = (root / "/".join(parts)).resolve(strict=True)
        except (OSError, ValueError, RuntimeError):  # not there; a name that no file can have; a loop of links
            return None
        return found if found.is_relative_to(root) else None

    def _send(self, content: BytesIO | BinaryIO, kind: str) -> BytesIO | BinaryIO:
        size = content.seek(0, os.SEEK_END)
        content.seek(0)
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(size))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-cache")  # a report is written again by the next run
        self.end_headers()
        return content

    def _index(self) -> bytes:
        """A page with a link to the site and to each report."""
        pages = [f"reports/{page.name}" for page in sorted((self.home / "reports").glob("*.html"))]
        pages = ["site/"] * (self.home / "site" / "index.html").is_file() + pages
        links = "".join(f'<li><a href="/{quote(page)}">{escape(page)}</a>' for page in pages)
        return f"<!doctype html><title>Overedit</title><h1>Reports</h1><ul>{links}</ul>".encode()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Log requests for who looks for them."""
        logger.debug(format, *arguments)
