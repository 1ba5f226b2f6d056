"""A server on this machine that stands for the hub, and for any place with files."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Hub:
    """What is served, and what was asked for.

    Attributes:
        address: without a slash at the end.
        files: path -> content.
        cut: path -> bytes after which the connection breaks, once each, in order.
        moved: path -> the address that it refers to, as the hub does for large files.
        ranges: whether it understands requests for the rest of a file.
        asked: (path, Range, Authorization) of every request.
        agents: the User-Agent of every request.
    """

    address: str
    files: dict[str, bytes] = field(default_factory=dict)
    cut: dict[str, list[int]] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    asked: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    agents: list[str | None] = field(default_factory=list)

    def publish(self, name: str, revision: str, files: dict[str, bytes], licence: str = "mit") -> None:
        """A model of the hub: its listing, and its files at one revision."""
        siblings = []
        for file, data in files.items():
            facts = {"rfilename": file, "size": len(data), "blobId": git_identifier(data)}
            if file.endswith((".safetensors", ".bin", ".onnx")):
                facts["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
            siblings.append(facts)
            self.files[f"/{name}/resolve/{revision}/{file}"] = data
        listing = {"id": name, "sha": revision, "tags": ["pytorch", f"license:{licence}"], "siblings": siblings}
        self.files[f"/api/models/{name}"] = json.dumps(listing).encode()


def git_identifier(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@contextmanager
def serve() -> Iterator[Hub]:
    """A hub without anything, until the block ends."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            wanted = self.headers.get("Range")
            hub.asked.append((path, wanted, self.headers.get("Authorization")))
            hub.agents.append(self.headers.get("User-Agent"))
            if path in hub.moved:
                self.send_response(302)
                self.send_header("Location", hub.moved[path])
                self.end_headers()
            elif path not in hub.files:
                self.send_error(404)
            else:
                self.send_data(path, hub.files[path], wanted)

        def send_data(self, path: str, data: bytes, wanted: str | None) -> None:
            begin = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and hub.ranges else 0
            if begin and begin >= len(data):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(data)}")
                self.end_headers()
                return
            self.send_response(206 if begin else 200)
            if begin:
                self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
            self.send_header("Content-Length", str(len(data) - begin))
            self.end_headers()
            breaks = hub.cut.get(path, [])
            self.wfile.write(data[begin : breaks.pop(0) if breaks else None])

        def log_message(self, format: str, *args: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        hub = Hub(f"http://127.0.0.1:{httpd.server_port}")
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield hub
        httpd.shutdown()
