"""Files of torch.save as other tools write them, and as an attacker does."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

Entries = dict[str, bytes]


def entries_of(path: Path) -> Entries:
    """Return the entries of a zip archive in their order."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_zip(path: Path, entries: Entries, *, method: Callable[[str], int] = lambda name: zipfile.ZIP_STORED) -> None:
    """Write an archive whose entries are compressed by the method for each name."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data, compress_type=method(name), compresslevel=1)


def write_zip_as_a_stream(path: Path, entries: Entries) -> None:
    """Write an archive without going back: sizes and checksums stand behind the data of each entry."""

    class Pipe(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data: bytes, /) -> int:  # type: ignore[override]
            return file.write(data)

    with path.open("wb") as file, zipfile.ZipFile(Pipe(), "w") as archive:  # type: ignore[arg-type]
        for name, data in entries.items():
            archive.writestr(name, data)


def write_pickle(path: Path, pickled: bytes, *, deflated: bool = False) -> None:
    """Write an archive of torch.save with this pickle and no tensors."""
    method = zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED
    write_zip(path, {"archive/data.pkl": pickled, "archive/version": b"3\n"}, method=lambda name: method)


def replace_in_pickle(path: Path, old: bytes, new: bytes) -> None:
    """Replace bytes in the pickle of a file that torch.save wrote."""
    entries = entries_of(path)
    for name, data in entries.items():
        if name.endswith("/data.pkl"):
            assert old in data
            entries[name] = data.replace(old, new)
    write_zip(path, entries)
