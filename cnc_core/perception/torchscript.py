"""The weights in a TorchScript archive, with none of its code run."""

from __future__ import annotations

import io
import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .estimator import PerceptionError


def is_torchscript(path: Path) -> bool:
    """Whether a file is an archive that `torch.jit.save` made."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def torchscript_weights(path: Path) -> dict[str, Tensor]:
    """The program's parameters and buffers by their names, on the CPU.

    `torch.jit.load` would compile the archive's code. The archive without its code is what `torch.save`
    writes, but for its classes, which mean nothing here: they are replaced by empty ones, and torch's
    ``weights_only`` unpickler reads the rest. Raises PerceptionError for an archive that needs more.
    """
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        root = next(name for name in names if name.endswith("/constants.pkl")).rpartition("/")[0]
        stand_ins = _stand_ins(archive.read(f"{root}/data.pkl"))
        without_code = io.BytesIO()
        with zipfile.ZipFile(without_code, "w", zipfile.ZIP_STORED) as weights:
            for name in names:
                if name.startswith((f"{root}/data/", f"{root}/data.pkl", f"{root}/version", f"{root}/byteorder")):
                    weights.writestr(name, archive.read(name))
    without_code.seek(0)
    try:
        with torch.serialization.safe_globals(stand_ins):
            program = torch.load(without_code, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler meets whatever bytes there are and fails in as many ways
        raise PerceptionError(
            f"the weights of the TorchScript program {path} cannot be read without running it, which is not done: "
            f"take the same model as .safetensors or .pth"
        ) from error
    return dict(_tensors(program))


class _StandIn:
    """An object of the program's: what it holds, and nothing that it does."""

    def __new__(cls, *_args: object) -> _StandIn:
        return super().__new__(cls)

    def __init__(self, *_args: object) -> None: ...

    def __setstate__(self, state: object) -> None:
        self.state = state


def _stand_ins(pickled: bytes) -> list[Any]:
    """A class of its own for each that the program's data name; nothing is unpickled."""
    named = {str(argument) for opcode, argument, _ in pickletools.genops(pickled) if opcode.name == "GLOBAL"}
    return [
        type(name, (_StandIn,), {"__module__": module})
        for module, _, name in (entry.rpartition(" ") for entry in sorted(named))
        if module.startswith("__torch__") or module == "torch.jit._pickle"
    ]


def _tensors(value: object, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    state = getattr(value, "state", None)
    if isinstance(state, dict):
        for name, entry in state.items():
            if isinstance(entry, Tensor):
                yield f"{prefix}{name}", entry.detach()
            else:
                yield from _tensors(entry, f"{prefix}{name}.")
