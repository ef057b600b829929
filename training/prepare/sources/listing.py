"""The pictures of a folder, and what its user should know before they are prepared."""

from __future__ import annotations

import os
import stat
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

from ...files import file_hash
from .base import PICTURES, SourceError, printable

_OTHER_PICTURES = (".gif", ".heic", ".heif", ".avif", ".jxl", ".jp2", ".psd", ".svg", ".tga", ".exr", ".cr2", ".nef",
    ".arw", ".dng")  # fmt: skip


@dataclass(frozen=True)
class Listing:
    """The pictures of a folder and those in it, by relative path with slashes, sorted; and what a user should know."""

    pictures: dict[str, Path]
    notes: list[str]


def pictures_below(folder: Path, *, without: Path | None = None) -> Listing:
    """List all pictures of a folder and those in it.

    Hidden files and folders are passed over, and so is what links lead to other folders.

    Args:
        folder: where to look.
        without: a folder whose pictures are not taken, such as that of the masks.

    Raises:
        SourceError: where it is no folder.
    """
    if not folder.is_dir():
        raise SourceError(f"{folder} is no folder of pictures")
    unreadable: list[str] = []
    links: list[str] = []
    others: Counter[str] = Counter()
    found: dict[str, Path] = {}
    left_out = without.resolve() if without else None
    for place, folders, files in os.walk(folder, onerror=lambda error: unreadable.append(str(error.filename))):
        here = Path(place)
        links += [str(here / name) for name in folders if (here / name).is_symlink()]
        folders[:] = sorted(n for n in folders if not n.startswith(".") and (here / n).resolve() != left_out)
        for name in files:
            ending = Path(name).suffix.lower()
            if not name.startswith(".") and ending in PICTURES:
                found[(here / name).relative_to(folder).as_posix()] = here / name
            elif ending in _OTHER_PICTURES:
                others[ending] += 1
    notes = [f"{_counted(links, 'linked folder')} not entered: give the folder itself, or copy it"] if links else []
    if unreadable:
        notes.append(f"{_counted(unreadable, 'folder')} cannot be read: look at the permissions")
    if others:
        kinds = ", ".join(f"{count} {ending}" for ending, count in sorted(others.items()))
        notes.append(f"files of other picture types are not taken: {kinds}; convert them to PNG or JPEG")
    pictures = dict(sorted(found.items()))
    if same := _duplicates(pictures):
        notes.append(f"{_counted(same, 'picture')} with the content of another, byte for byte: remove one of each")
    return Listing(pictures, [f"{folder}: {note}" for note in notes])


def _duplicates(pictures: dict[str, Path]) -> list[str]:
    """Pictures with the content of an earlier one. Only files of one size are read."""
    by_size: dict[int, list[str]] = defaultdict(list)
    for name, path in pictures.items():
        try:
            state = path.stat()
        except OSError:
            continue
        if stat.S_ISREG(state.st_mode) and state.st_size:
            by_size[state.st_size].append(name)
    seen: dict[str, str] = {}
    same = []
    for name in (name for names in by_size.values() if len(names) > 1 for name in names):
        try:
            first = seen.setdefault(file_hash(pictures[name]), name)
        except OSError:
            continue
        if first != name:
            same.append(f"{name} = {first}")
    return sorted(same)


def _counted(names: list[str], what: str) -> str:
    """How many of what, and the first of them, as printable text."""
    some = ", ".join(map(printable, sorted(names)[:3])) + (", ..." if len(names) > 3 else "")
    return f"{len(names)} {what}{'s' if len(names) > 1 else ''} ({some})"


def by_stem(pictures: dict[str, Path]) -> dict[str, Path]:
    """The same by relative path without the ending, to find the mask of a picture of another format."""
    return {name.rpartition(".")[0]: path for name, path in pictures.items()}
