"""The weights in a TorchScript archive, with none of its code run."""

from __future__ import annotations

import zipfile
from pathlib import Path

from torch import Tensor

from ..pickle_names import ALLOWED
from ..pickled import Refused
from ..stored_tensors import named_tensors
from ..torch_files import open_archive, open_zip
from .estimator import PerceptionError


def is_torchscript(path: Path) -> bool:
    """Whether a file is an archive that `torch.jit.save` made."""
    try:
        with open_archive(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (OSError, Refused, zipfile.BadZipFile):
        return False


def torchscript_weights(path: Path) -> dict[str, Tensor]:
    """The program's parameters and buffers by their names, on the CPU.

    `torch.jit.load` would compile the archive's code. Its objects are read as data instead, as those of `torch.save`
    are. Raises PerceptionError for an archive that needs more.
    """
    try:
        program = open_zip(path, program=True, allowed=_may_be_named)
        return program.read({name: program.find(name, tensor) for name, tensor in named_tensors(program.content)})
    except Exception as error:  # the readers meet whatever bytes there are and fail in as many ways
        raise PerceptionError(
            f"the weights of the TorchScript program {path} cannot be read without running it, which is not done: "
            f"take the same model as .safetensors or .pth"
        ) from error


def _may_be_named(name: str) -> bool:
    """Whether a class or function is the program's own, or one that weights name."""
    return name in ALLOWED or name.startswith(("__torch__.", "torch.jit._pickle."))
