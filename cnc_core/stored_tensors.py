"""What a pickle of torch.save says of tensors: their names, and where the values of each lie."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .pickle_names import STORAGES
from .pickled import Call, Name, Refused

_MAX_DEPTH = 16
_MAX_ENTRIES = 100_000
_MAX_NAME = 300

_VIEWS = frozenset(f"torch._utils._rebuild_tensor{version}" for version in ("", "_v2", "_v3"))
_PARAMETERS = frozenset(f"torch._utils._rebuild_parameter{kind}" for kind in ("", "_with_state"))
_TYPED = "torch._tensor._rebuild_from_type_v2"


@dataclass(frozen=True)
class Storage:
    """A storage that the pickle refers to: its key in the file, its size in bytes, and its elements' dtype."""

    key: str
    size: int
    dtype: torch.dtype


@dataclass(frozen=True)
class StoredTensor:
    """A view into a storage: offset and stride count elements of the tensor's own dtype."""

    storage: Storage
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def on_meta(self) -> Tensor:
        """Return a tensor without values, for its shape and dtype."""
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device="meta")


def storage_of(reference: Any) -> Storage:
    """Read torch.save's reference to a storage. Raises ValueError for another one."""
    kind, storage_type, key, _location, numel, *views = reference
    if kind != "storage" or type(key) is not str or not _is_size(numel) or any(view is not None for view in views):
        raise ValueError("a reference to something else than a whole storage")
    name = storage_type.name.rpartition(".")[2]
    dtype: torch.dtype = getattr(torch, STORAGES.get(name, "uint8"))
    return Storage(key, numel * dtype.itemsize, dtype)


def named_tensors(content: Any) -> Iterator[tuple[str, Call]]:
    """Yield the tensors in nested mappings and objects, with their names joined by dots.

    What is nested deeper or named longer than in any network is passed over. Raises Refused for more entries than
    any checkpoint has: they can be shared, so that a small file holds any number.
    """
    pending: list[tuple[str, int, Any]] = [("", 0, content)]
    count = 0
    while pending:
        name, depth, value = pending.pop()
        if isinstance(value, Call) and value.name.startswith(("torch._utils._rebuild_", _TYPED)):
            yield name, value
        elif depth < _MAX_DEPTH:
            entries = _entries(value)
            count += len(entries)
            if count > _MAX_ENTRIES:
                raise Refused(f"holds more than {_MAX_ENTRIES} entries, which is more than weights need")
            inside = [(f"{name}.{key}" if name else key, depth + 1, entries[key]) for key in reversed(entries)]
            pending += [entry for entry in inside if len(entry[0]) <= _MAX_NAME]


def stored_tensor(name: str, value: Call) -> StoredTensor:
    """Read the description of one tensor. Raises Refused, by the tensor's name, for what is no plain one."""
    for _ in range(4):  # a tensor in a parameter in a subclass
        if value.name == _TYPED:
            function, _type, args, *_state = value.args
            value = Call(function.name, args)
        elif value.name in _PARAMETERS and isinstance(value.args[0], Call):
            value = value.args[0]
    if value.name not in _VIEWS:
        raise Refused(f"holds {name} as a sparse, quantised or otherwise special tensor; expected a plain one")
    storage, offset, shape, stride, *rest = value.args
    dtype = storage.dtype
    if value.name.endswith("_v3") and isinstance(rest[2], Name):
        dtype = getattr(torch, rest[2].name.rpartition(".")[2])
    tensor = StoredTensor(storage, dtype, offset, shape, stride)
    if not _fits(tensor):
        raise Refused(f"is a damaged PyTorch file: {name} is said to have values beside its own, or one of them twice")
    return tensor


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


def _fits(tensor: StoredTensor) -> bool:
    """Whether the view stays in its storage, and has each value of it once."""
    if not (isinstance(tensor.shape, tuple) and isinstance(tensor.stride, tuple)):
        return False
    if not len(tensor.shape) == len(tensor.stride) <= 8:
        return False
    if not all(map(_is_size, (tensor.offset, *tensor.shape, *tensor.stride))):
        return False
    reach = 0  # of the dimensions seen, from the one with the smallest stride
    for stride, size in sorted(zip(tensor.stride, tensor.shape, strict=True)):
        if size > 1 and stride <= reach:
            return False
        reach += max(size - 1, 0) * stride
    return 0 in tensor.shape or tensor.offset + reach < tensor.storage.size // tensor.dtype.itemsize


def _entries(value: Any) -> dict[str, Any]:
    """Return what a mapping or an object holds under names."""
    if isinstance(value, dict):
        return value
    if not isinstance(value, Call):
        return {}
    entries = dict(value.state) if isinstance(value.state, dict) else {}
    if value.name == "collections.OrderedDict" and value.args:  # as Python 2 wrote it: a list of pairs
        for key, entry in value.args[0]:
            if type(key) is not str:
                raise ValueError("a key that is not a string")
            entries[key] = entry
    return entries | value.entries
