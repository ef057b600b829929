"""Files of torch.save, the zip archives of today and the older plain pickles: what tensors they hold, and where.

The pickle in them is read as data (:mod:`.pickled`), and a tensor is taken from the file as the pickle describes it,
after the description was found to fit the bytes that are there.
"""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .pickled import MAX_BYTES, Call, Refused, read_pickle
from .stored_tensors import Storage, StoredTensor, storage_of, stored_tensor

_MAX_DIRECTORY = 4 << 20
"""Bytes of a zip archive's directory: 50,000 tensors."""

_MAX_INFLATION = 8
"""How many times as large as the file its compressed tensors may become: a few times, where many are zero."""

_LEGACY_MAGIC, _LEGACY_VERSION = 0x1950A86A20F9469CFC6C, 1001
_BYTE_ORDER = "is a PyTorch file of a machine with another byte order; save it on one like this"
_ENCRYPTED, _UTF8 = 1, 0x800
_SIZES_FOLLOW = 8  # the sizes stand behind the data, and in the directory
_ZIP64 = 0xFFFFFFFF  # the size is a larger one, in the extra field and in the directory


@dataclass(frozen=True)
class Extent:
    """Where a storage's bytes lie in the file; ``entry`` names the zip entry to inflate where they are compressed."""

    start: int
    size: int
    entry: str | None = None


@dataclass(frozen=True, eq=False)
class TorchFile:
    """content: what the pickle describes. extent: looks up a storage's place; raises Refused for a bad one."""

    path: Path
    content: Any
    extent: Callable[[str], Extent]

    def find(self, name: str, description: Call) -> StoredTensor:
        """Read a tensor's description. Raises Refused where it is not a plain one that the file has."""
        tensor = stored_tensor(name, description)
        size = self.extent(tensor.storage.key).size
        if size != tensor.storage.size:
            raise Refused(
                f"is a damaged PyTorch file: {name} is said to be in {tensor.storage.size} bytes, which are {size}; "
                "nothing in it was executed"
            )
        return tensor

    def read(self, tensors: Mapping[str, StoredTensor]) -> dict[str, Tensor]:
        """Return the tensors, mapped from the file but where they are compressed or not aligned to their elements.

        Tensors of one storage share it. Raises Refused for compressed ones that are damaged or grow too large.
        """
        try:
            mapped = torch.UntypedStorage.from_file(str(self.path), shared=False, nbytes=self.path.stat().st_size)
        except (MemoryError, RuntimeError) as error:
            raise Refused(f"cannot be mapped into memory: {error}") from error
        extents = {stored.storage.key: self.extent(stored.storage.key) for stored in tensors.values()}
        storages = _inflated(self.path, extents)
        found = {}
        for name, stored in tensors.items():
            key = stored.storage.key
            if key not in storages:
                start, size = extents[key].start, extents[key].size
                aligned = start % stored.dtype.itemsize == 0
                storages[key] = mapped[start : start + size] if aligned else _copied(self.path, extents[key])
            empty = torch.empty(0, dtype=stored.dtype)
            found[name] = empty.set_(storages[key], stored.offset, stored.shape, stored.stride)
        return found


def open_zip(path: Path, *, program: bool = False, allowed: Callable[[str], bool] | None = None) -> TorchFile:
    """Open an archive of torch.save, or of torch.jit.save where ``program`` is True.

    allowed: as in :func:`read_pickle`. Raises Refused for whatever is neither.
    """
    with open_archive(path) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        if len(entries) != len(archive.infolist()):
            raise Refused("is a zip archive with several entries of one name; it cannot be told which is meant")
        if not program and any(name.endswith("/constants.pkl") for name in entries):
            raise Refused("is a TorchScript program, not a file of weights")
        pickles = [name for name in entries if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            many = "several of PyTorch's weights" if pickles else "without PyTorch weights in it"
            raise Refused(f"is a zip archive {many}; unpack it first")
        root = pickles[0].removesuffix("data.pkl")
        starts = [*sorted(entry.header_offset for entry in entries.values()), archive.start_dir]
        ends = dict(itertools.pairwise(starts))
        byteorder = entries.get(f"{root}byteorder")
        if byteorder is not None and _content(archive, path, byteorder, ends) != b"little":
            raise Refused(_BYTE_ORDER)
        content = read_pickle(io.BytesIO(_content(archive, path, entries[pickles[0]], ends)), allowed, storage_of)

    @functools.cache
    def extent(storage: str) -> Extent:
        entry = entries.get(f"{root}data/{storage}")
        if entry is None:
            raise Refused(f"is a PyTorch file that lacks its part data/{storage[:100]}; download it again")
        return _extent(path, entry, ends)

    return TorchFile(path, content, extent)


class _BoundedFile(io.BufferedReader):
    """A file of which no more than a directory's limit is read at once, whatever a header says of its size."""

    bounded = True

    def read(self, size: int | None = -1, /) -> bytes:
        if self.bounded and size is not None and size > _MAX_DIRECTORY:
            raise Refused(f"is a zip archive with a directory of {size} bytes; expected {_MAX_DIRECTORY} at most")
        return super().read(size)


@contextlib.contextmanager
def open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip archive of any kind. Raises Refused for a directory of a size that no file of weights has."""
    with _BoundedFile(io.FileIO(path)) as file, zipfile.ZipFile(file) as archive:
        file.bounded = False  # the entries have bounds of their own
        yield archive


def _content(archive: zipfile.ZipFile, path: Path, entry: zipfile.ZipInfo, ends: Mapping[int, int]) -> bytes:
    """Read a zip entry. Raises Refused for one larger than any pickle of weights, BadZipFile for a damaged one."""
    if entry.file_size > MAX_BYTES:
        raise Refused(
            f"is a zip archive whose {entry.filename[-100:]} has {entry.file_size} bytes, more than weights need; "
            f"expected {MAX_BYTES} at most"
        )
    extent = _extent(path, entry, ends)
    if extent.entry is not None:
        return archive.read(entry)
    with path.open("rb") as file:
        file.seek(extent.start)
        data = file.read(extent.size)
    if entry.CRC not in (0, zlib.crc32(data)):  # torch.save can leave it out
        raise zipfile.BadZipFile(f"wrong checksum of {entry.filename[-100:]}")
    return data


def _extent(path: Path, entry: zipfile.ZipInfo, ends: Mapping[int, int]) -> Extent:
    """Return where an entry's data lies.

    ends: where the next entry begins, by where this one does. Raises Refused where the data cannot be read, or where
    the entry's own header, the directory and the room up to the next entry do not agree in everything.
    """
    end = ends[entry.header_offset]
    if entry.flag_bits & _ENCRYPTED:
        raise Refused("is an encrypted zip archive; unpack it first")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise Refused("is a zip archive compressed in another way than deflate; unpack it first")
    with path.open("rb") as file:
        file.seek(entry.header_offset)
        signature, flags, method, *told, name_length, extra_length = struct.unpack("<4s2xHH8xIIHH", file.read(30))
        name, extra = file.read(name_length), file.read(extra_length)
        start = file.tell()
        file.seek(entry.compress_size, io.SEEK_CUR)
        behind = file.read(min(end - file.tell(), 25)) if file.tell() <= end else None
    at = 0
    while at + 4 <= extra_length:  # fields, each behind its kind and length, which fill the place before the data
        at += 4 + int.from_bytes(extra[at + 2 : at + 4], "little")
    sizes = [entry.compress_size, entry.file_size]
    agreed = (
        signature == b"PK\x03\x04"
        and name == entry.orig_filename.encode("utf-8" if entry.flag_bits & _UTF8 else "cp437")
        and at == extra_length
        and not (flags ^ entry.flag_bits) & _ENCRYPTED
        and method == entry.compress_type
        and (flags & _SIZES_FOLLOW or _ZIP64 in told or told == sizes)
        and (method != zipfile.ZIP_STORED or entry.compress_size == entry.file_size)
        and behind in (_descriptors(entry) if flags & _SIZES_FOLLOW else (b"",))
    )
    if not agreed:
        raise Refused(f"is a damaged zip archive: its directory and its part {entry.filename[-100:]} disagree")
    return Extent(start, entry.file_size, None if method == zipfile.ZIP_STORED else entry.filename)


def _descriptors(entry: zipfile.ZipInfo) -> tuple[bytes, ...]:
    """Return the forms of an entry's sizes where they stand behind its data."""
    told = entry.CRC, entry.compress_size, entry.file_size
    forms = [struct.pack(layout, *told) for layout in ("<III", "<IQQ") if max(told) < _ZIP64 or layout == "<IQQ"]
    return (*forms, *(b"PK\x07\x08" + form for form in forms))


def _inflated(path: Path, extents: Mapping[str, Extent]) -> dict[str, torch.UntypedStorage]:
    """Inflate those that are compressed; raise Refused for damaged ones, and for more bytes than weights have."""
    compressed = {key: extent for key, extent in extents.items() if extent.entry is not None and extent.size}
    size, most = sum(extent.size for extent in compressed.values()), _MAX_INFLATION * path.stat().st_size
    if size > most:
        raise Refused(f"is a zip archive whose tensors grow to {size} bytes; expected {most} at most for its size")
    if not compressed:
        return {}
    with open_archive(path) as archive:
        content = {key: archive.read(extent.entry or "") for key, extent in compressed.items()}
    return {
        key: torch.frombuffer(bytearray(data), dtype=torch.uint8).untyped_storage() for key, data in content.items()
    }


def _copied(path: Path, extent: Extent) -> torch.UntypedStorage:
    """Read bytes into memory of their own."""
    copy = torch.empty(extent.size, dtype=torch.uint8)
    with path.open("rb") as file:
        file.seek(extent.start)
        if file.readinto(copy.numpy().data) != extent.size:
            raise ValueError("cut short")
    return copy.untyped_storage()


def open_legacy(path: Path) -> TorchFile:
    """Open a file of torch.save as it was before zip archives: pickles, then each storage behind its length.

    Raises Refused for code in a pickle, and any exception for what is no such file.
    """
    sizes: dict[str, Storage] = {}

    def storage(reference: Any) -> Storage:
        found = storage_of(reference)
        return sizes.setdefault(found.key, found)

    extents: dict[str, Extent] = {}
    with path.open("rb") as file:
        if read_pickle(file) != _LEGACY_MAGIC or read_pickle(file) != _LEGACY_VERSION:
            raise ValueError("not a file of torch.save")
        system, content, keys = (read_pickle(file, persistent=storage) for _ in range(3))
        if not system["little_endian"]:
            raise Refused(_BYTE_ORDER)
        for key in keys:
            count = int.from_bytes(file.read(8), "little")
            extents[key] = Extent(file.tell(), count * sizes[key].dtype.itemsize)
            file.seek(extents[key].size, io.SEEK_CUR)
        if file.tell() > path.stat().st_size:
            raise ValueError("cut short")
    return TorchFile(path, content, extents.__getitem__)
