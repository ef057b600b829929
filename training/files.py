"""Whole files or none, checksums, and one run a folder: what everything that writes for hours needs."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


class FolderInUse(RuntimeError):
    """Another run works on the same folder."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path to write to; it takes `path`'s place when the block ends well, and is gone otherwise.

    Who may read the file follows from the umask, whatever its writer thinks: safetensors keeps others out.
    Raises OSError, with what to do, where the disk is full.
    """
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        unfinished.touch()
        mode = stat.S_IMODE(unfinished.stat().st_mode)
        yield unfinished
        unfinished.chmod(mode)
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException as error:
        unfinished.unlink(missing_ok=True)
        if isinstance(error, Exception) and _is_full(error):
            free = shutil.disk_usage(path.parent).free
            raise OSError(
                f"{path} cannot be written, the disk is full or the file too large for it ({free / 2**20:.0f} MiB "
                f"free): make room and start again; what was finished before is kept"
            ) from error
        raise


def _is_full(error: Exception) -> bool:
    # safetensors wraps the system's error in one of its own, whose text is all that is left of it
    return any(text in str(error) for text in ("No space left", "StorageFull", "File too large", "FileTooLarge"))


def file_hash(path: Path) -> str:
    """A file's SHA-256, in hex."""
    total = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            total.update(block)
    return total.hexdigest()


@contextmanager
def only_run_in(folder: Path) -> Iterator[None]:
    """Hold a folder, made where it is missing, for this process alone.

    The system frees the lock when its holder ends, however it ends, so no lock is ever stale. Raises FolderInUse,
    naming the process that holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    holder = folder / "run.pid"
    lock = FileLock(folder / "run.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        who = holder.read_text(encoding="utf-8") if holder.exists() else "a process that has just started"
        raise FolderInUse(f"{folder} is in use by {who}; wait for it, stop it, or choose another folder") from None
    try:
        holder.write_text(f"process {os.getpid()} on {platform.node()}", encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()
