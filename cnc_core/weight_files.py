"""Files of weights, told apart by their content: safetensors, and the pickles that torch.save writes.

Nothing here runs code out of a file: pickles go through torch's ``weights_only`` unpickler.
"""

from __future__ import annotations

import os
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor


class CheckpointError(ValueError):
    """A file that is not what it should be; the message says what it seems to be and what was expected."""


@dataclass(frozen=True, eq=False)
class Weights:
    """What a file holds: the names of all tensors, those tensors asked for, and the header's metadata."""

    names: list[str]
    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def open_weights(path: str | os.PathLike[str], prefixes: tuple[str, ...]) -> Weights:
    """Read a file of weights, with only the tensors whose names begin with one of ``prefixes``.

    They are mapped from the file where its format allows, so that memory is taken as they are used. The names
    of nested mappings are joined by dots; a mapping under ``state_dict`` stands for the whole file. Raises
    CheckpointError for whatever is not a whole file of weights.
    """
    path = Path(path)
    head = _head(path)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**32:
        return _open_safetensors(path, prefixes)
    if head.startswith(b"PK\x03\x04"):
        _check_zip(path)
        return _open_pickle(path, prefixes, mmap=True)
    return _open_pickle(path, prefixes, mmap=False)


def _head(path: Path) -> bytes:
    """Return the file's first bytes; raise CheckpointError for what no reader needs to look at."""
    if path.is_dir():
        raise CheckpointError(f"{path} is a directory; expected a file of weights")
    if not path.exists():
        raise CheckpointError(f"{path} does not exist")
    try:
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
    if re.match(rb"(\xef\xbb\xbf)?\s*<(!doctype|html|\?xml|head)", head, re.IGNORECASE):
        raise CheckpointError(
            f"{path} is a web page; the download saved the page around the file, use the download link itself"
        )
    return head


def _open_safetensors(path: Path, prefixes: tuple[str, ...]) -> Weights:
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            tensors = {name: file.get_tensor(name) for name in names if name.startswith(prefixes)}
            return Weights(names, tensors, dict(file.metadata() or {}))
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is a safetensors file cut short or damaged ({error}; {path.stat().st_size} bytes on disk); "
            "download it again"
        ) from error


def _check_zip(path: Path) -> None:
    """Raise CheckpointError unless the file is a whole zip archive with a pickle of torch.save in it."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise CheckpointError(
            f"{path} is a PyTorch file (zip) cut short or damaged ({error}; {path.stat().st_size} bytes on disk); "
            "download it again"
        ) from error
    if any(name.endswith("/constants.pkl") for name in names):
        raise CheckpointError(f"{path} is a TorchScript program, not a file of weights")
    if not any(name.endswith("/data.pkl") for name in names):
        raise CheckpointError(f"{path} is a zip archive without PyTorch weights in it; unpack it first")


def _open_pickle(path: Path, prefixes: tuple[str, ...], *, mmap: bool) -> Weights:
    try:
        with torch.serialization.safe_globals(_STAND_INS):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # the unpickler meets whatever bytes there are and fails in as many ways
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        if isinstance(error, pickle.UnpicklingError) and refused:
            raise CheckpointError(
                f"{path} is a pickle with code in it: it asks for {refused[1]}, which was refused and not "
                "executed; weights need no code, do not trust this file"
            ) from None
        what = "a damaged PyTorch file" if mmap else "neither a safetensors file nor a whole one of torch.save"
        raise CheckpointError(
            f"{path} is {what} ({path.stat().st_size} bytes on disk); nothing in it was executed"
        ) from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    tensors = dict(_flat(content))
    wanted = {name: tensor.detach() for name, tensor in tensors.items() if name.startswith(prefixes)}
    return Weights(list(tensors), wanted, {})


def _flat(content: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of nested mappings with their names joined by dots."""
    if not isinstance(content, Mapping):
        return
    for name, value in content.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        else:
            yield from _flat(value, f"{prefix}{name}.")


class _StandIn:
    """Takes the place of an object that Lightning leaves beside the weights; does nothing, holds nothing."""

    def __new__(cls, *_args: object) -> _StandIn:
        return super().__new__(cls)

    def __init__(self, *_args: object) -> None: ...

    def __setstate__(self, _state: object) -> None: ...


_STAND_INS: list[Any] = [
    type(name.rpartition(".")[2], (_StandIn,), {"__module__": name.rpartition(".")[0]})
    for name in (
        "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
        "lightning.pytorch.callbacks.model_checkpoint.ModelCheckpoint",
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray.scalar",
        "numpy.dtype",
        "_codecs.encode",
    )
]
