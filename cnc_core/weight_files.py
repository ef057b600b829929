"""Files of weights, told apart by their content: safetensors, and the pickles that torch.save writes.

Nothing here runs code out of a file: its pickles are read as data. A file that is refused takes seconds and little
memory, whatever its size: values are read after names, shapes and places were checked.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from .pickled import Call, Refused
from .stored_tensors import named_tensors
from .torch_files import open_legacy, open_zip

_MAX_HEADER = 8 << 20
"""Bytes of a safetensors file's header. That of SDXL has less than 1 MB."""

_MAX_NAME = 1000

_SHARD = re.compile(r"-(\d{1,9})-of-(\d{1,9})\.")
"""In the name of a shard, as Hugging Face's libraries write it."""


class CheckpointError(ValueError):
    """A file that is not what it should be; the message says what it seems to be and what was expected."""


@dataclass(frozen=True, eq=False)
class Weights:
    """What a file holds.

    names: of all tensors. shapes: those asked for, on the meta device, which takes no memory. metadata: the header's.
    """

    names: list[str]
    shapes: dict[str, Tensor]
    metadata: dict[str, str]
    _read: Callable[[], dict[str, Tensor]]

    @functools.cached_property
    def tensors(self) -> dict[str, Tensor]:
        """Those asked for, mapped from the file where its format allows. Raises CheckpointError as they are read."""
        return self._read()


def open_weights(
    path: str | os.PathLike[str], prefixes: tuple[str, ...], *, rename: Callable[[str], str] = str
) -> Weights:
    """Read a file of weights, with only the tensors whose names begin with one of ``prefixes``.

    The names of nested mappings are joined by dots; a mapping under ``state_dict`` stands for the whole file. All
    names are as ``rename`` makes them. Raises CheckpointError for whatever is not a whole file of weights.
    """
    path = Path(path)
    head = _head(path)
    select = _Selection(path, prefixes, rename)
    header_size = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and header_size < 2**48:
        return _open_safetensors(path, select, header_size)
    return _open_torch(path, select, zipped=head.startswith(b"PK\x03\x04"))


@dataclass(frozen=True)
class _Selection:
    """Which tensors are asked for, and what they are called."""

    path: Path
    prefixes: tuple[str, ...]
    rename: Callable[[str], str]

    def __call__(self, names: Iterable[str]) -> tuple[list[str], dict[str, int]]:
        """Return all names renamed, and the position of each that is asked for. Raises CheckpointError for doubles."""
        renamed = [self.rename(name) for name in names]
        wanted: dict[str, int] = {}
        for position, name in enumerate(renamed):
            if name.startswith(self.prefixes):
                if name in wanted:
                    raise CheckpointError(f"{self.path} holds two tensors for {name}; it cannot be told which is meant")
                wanted[name] = position
        return renamed, wanted


def _head(path: Path) -> bytes:
    """Return the file's first bytes; raise CheckpointError for what no reader needs to look at."""
    try:
        if path.is_dir():
            raise CheckpointError(f"{path} is a directory; expected a file of weights")
        if not path.exists():
            raise CheckpointError(f"{path} does not exist")
        if not path.is_file():  # a pipe or a device, which may never end
            raise CheckpointError(f"{path} is not a regular file; expected a file of weights")
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    if not head:
        raise CheckpointError(f"{path} is an empty file; the download or copy failed, repeat it")
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"{path} is a Git LFS pointer, a text that stands for the weights; run `git lfs pull` in its "
            "repository or download the file itself"
        )
    shard = _SHARD.search(path.name)
    if shard and int(shard[2]) > 1:
        raise CheckpointError(
            f"{path} is shard {int(shard[1])} of {int(shard[2])} of a checkpoint; expected all of it in one file: "
            "merge the shards first"
        )
    if re.match(rb'\s*\{\s*"', head) and (b'"weight_map"' in head or path.name.endswith(".index.json")):
        raise CheckpointError(
            f"{path} is the index of a checkpoint in shards and holds no weights; expected all of it in one file: "
            "merge the shards first"
        )
    if re.match(rb"(\xef\xbb\xbf)?\s*<(!doctype|html|\?xml|head)", head, re.IGNORECASE):
        raise CheckpointError(
            f"{path} is a web page; the download saved the page around the file, use the download link itself"
        )
    return head


def _open_safetensors(path: Path, select: _Selection, size: int) -> Weights:
    """Open a safetensors file with a header of this many bytes."""
    if size > _MAX_HEADER:
        raise CheckpointError(
            f"{path} is a safetensors file with a header of {size} bytes, more than weights need; expected "
            f"{_MAX_HEADER} at most"
        )

    def read() -> dict[str, Tensor]:
        with _safetensors(path) as file:
            return {name: file.get_tensor(own[position]) for name, position in wanted.items()}

    with _safetensors(path) as file:
        own = list(file.keys())
        longest = max(map(len, own), default=0)
        if longest > _MAX_NAME:
            raise CheckpointError(
                f"{path} holds a tensor whose name has {longest} characters; expected {_MAX_NAME} at most"
            )
        names, wanted = select(own)
        shapes = {name: file.get_tensor(own[position]).to("meta") for name, position in wanted.items()}
        return Weights(names, shapes, dict(file.metadata() or {}), read)


@contextlib.contextmanager
def _safetensors(path: Path) -> Iterator[Any]:
    """Open the file; what is wrong with it becomes a CheckpointError."""
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is a safetensors file cut short or damaged ({error}; {path.stat().st_size} bytes on disk); "
            "download it again"
        ) from error
    except (MemoryError, RuntimeError) as error:
        raise CheckpointError(f"{path} cannot be mapped into memory: {error}") from error


def _open_torch(path: Path, select: _Selection, *, zipped: bool) -> Weights:
    """Open a file of torch.save; only what is asked for has to be whole."""
    with _torch_errors(path, zipped):
        file = open_zip(path) if zipped else open_legacy(path)
        content = file.content
        if isinstance(content, dict) and isinstance(content.get("state_dict"), (dict, Call)):
            content = content["state_dict"]
        found = list(named_tensors(content))
        names, wanted = select(name for name, _ in found)
        stored = {name: file.find(*found[position]) for name, position in wanted.items()}
        shapes = {name: tensor.on_meta() for name, tensor in stored.items()}

    def read() -> dict[str, Tensor]:
        with _torch_errors(path, zipped):
            return file.read(stored)

    return Weights(names, shapes, {}, read)


@contextlib.contextmanager
def _torch_errors(path: Path, zipped: bool) -> Iterator[None]:
    try:
        yield
    except CheckpointError:
        raise
    except Refused as error:
        raise CheckpointError(f"{path} {error}") from None
    except zipfile.BadZipFile as error:
        raise CheckpointError(
            f"{path} is a PyTorch file (zip) cut short or damaged ({error}; {path.stat().st_size} bytes on disk); "
            "download it again"
        ) from error
    except Exception as error:  # the readers meet whatever bytes there are and fail in as many ways
        what = "a damaged PyTorch file" if zipped else "neither a safetensors file nor a whole one of torch.save"
        raise CheckpointError(
            f"{path} is {what} ({path.stat().st_size} bytes on disk); nothing in it was executed"
        ) from error
