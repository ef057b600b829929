"""Estimators by name: what there is to choose from, and loading the chosen one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn as nn

from .alpha import AlphaEstimator
from .estimator import Inpainter, Kind, MapEstimator, PerceptionError, Selector
from .lama import load_spandrel
from .mask_depth import MASK_AND_GROUND_PLANE, MaskAndGroundPlane
from .midas import find_midas, load_midas
from .migan import load_migan
from .mini_estimator import WEIGHTS, load_mini
from .onnx_salience import load_onnx_salience
from .opencv_inpaint import METHODS, OpenCVInpainter
from .transformers_depth import find_models, load_transformers_depth
from .transformers_sam2 import load_transformers_sam2
from .u2net import load_u2net
from .weights import command, fetchable

MINI_FOLDER = Path(__file__).resolve().parents[2] / "models" / "mini"
"""Where this repository keeps the Mini's weights."""


@dataclass(frozen=True)
class BuiltIn:
    """An estimator that needs no file of the user's.

    load: takes operations, dtype and device. path: the file that comes with the repository, where it has one.
    """

    load: Callable[..., Any]
    path: Path | None = None


@dataclass(frozen=True)
class Format:
    """A kind of model file or folder.

    find: the models in some folders, by name. load: one of them, from its path and operations, dtype and
    device. what: what to put there, for an artist to whom it is missing.
    """

    find: Callable[[list[Path]], dict[str, Path]]
    load: Callable[..., Any]
    what: str


@dataclass(frozen=True)
class _Choice:
    load: Callable[..., Any]
    path: Path | None


def _mini(kind: Any) -> BuiltIn:
    path = MINI_FOLDER / WEIGHTS[kind]
    return BuiltIn(partial(load_mini, kind, path), path)


def _opencv(method: str) -> BuiltIn:
    return BuiltIn(lambda **_: OpenCVInpainter(method))


def files(*endings: str) -> Callable[[list[Path]], dict[str, Path]]:
    """A `Format.find` for single files: those that end so, by their path relative to the folder that holds them.

    The first of two same names wins.
    """

    def find(folders: list[Path]) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for folder in folders:
            for path in sorted(folder.rglob("*")):
                if path.suffix.lower() in endings and path.is_file():
                    found.setdefault(path.relative_to(folder).as_posix(), path)
        return found

    return find


BUILT_IN: dict[Kind, dict[str, BuiltIn]] = {
    "depth": {"mini": _mini("depth"), MASK_AND_GROUND_PLANE: BuiltIn(lambda **_: MaskAndGroundPlane())},
    "saliency": {"mini": _mini("saliency"), "alpha": BuiltIn(lambda **_: AlphaEstimator())},
    "inpainting": {method: _opencv(method) for method in METHODS},
    "selection": {},
}
"""What comes with the repository, by kind and name."""

FORMATS: dict[Kind, tuple[Format, ...]] = {
    "depth": (
        Format(
            find_models,
            lambda path, operations, **options: load_transformers_depth(path, **options),
            "the folder of a transformers depth model (config.json, preprocessor_config.json, model.safetensors)",
        ),
        Format(find_midas, load_midas, "MiDaS's midas_v21_small_256.pt"),
    ),
    "saliency": (
        Format(
            files(".onnx"),
            lambda path, device=None, **_: load_onnx_salience(path, device=device),
            "the .onnx file of an IS-Net, U2-Net or BiRefNet",
        ),
        Format(files(".pth"), load_u2net, "u2net.pth or u2netp.pth of xuebinqin/U-2-Net"),
    ),
    "inpainting": (
        Format(
            files(".onnx"),
            lambda path, device=None, **_: load_migan(path, device=device),
            "MI-GAN with its pipeline (migan_pipeline_v2.onnx)",
        ),
        Format(
            files(".safetensors", ".pt", ".pth", ".ckpt"),
            lambda path, device=None, **_: load_spandrel(path, device=device),
            "LaMa (big-lama.pt, or the same weights as .safetensors, .pth or .ckpt)",
        ),
    ),
    "selection": (
        Format(
            find_models,
            lambda path, operations, **options: load_transformers_sam2(path, **options),
            "the folder of a SAM 2 in the transformers format (config.json, preprocessor_config.json, "
            "model.safetensors)",
        ),
    ),
}
"""What users bring, by kind."""


def available(kind: Kind, folders: Iterable[Path] = ()) -> list[str]:
    """The names that the loader of this kind takes: what is built in, then what the folders hold."""
    return list(_choices(kind, list(folders)))


def model_path(kind: Kind, name: str, folders: Iterable[Path] = ()) -> Path | None:
    """The file or folder that an estimator is read from, or None where it needs none.

    Whether a file that comes with the repository is there is not asked. Raises PerceptionError for an unknown
    name: a name is looked up among those found, never joined to a path.
    """
    return _choice(kind, name, list(folders)).path


def load_depth(name: str, folders: Iterable[Path] = (), **options: Any) -> MapEstimator:
    """The depth estimator of this name; see `load`."""
    return cast(MapEstimator, load("depth", name, folders, **options))


def load_saliency(name: str, folders: Iterable[Path] = (), **options: Any) -> MapEstimator:
    """The salience estimator of this name; see `load`."""
    return cast(MapEstimator, load("saliency", name, folders, **options))


def load_inpainter(name: str, folders: Iterable[Path] = (), **options: Any) -> Inpainter:
    """The inpainter of this name; see `load`."""
    return cast(Inpainter, load("inpainting", name, folders, **options))


def load_selector(name: str, folders: Iterable[Path] = (), **options: Any) -> Selector:
    """The selector of this name; see `load`."""
    return cast(Selector, load("selection", name, folders, **options))


def load(
    kind: Kind,
    name: str,
    folders: Iterable[Path] = (),
    *,
    operations: Any = nn,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Any:
    """The estimator of this kind and name.

    folders: where the user's models are. operations: where layers come from, for the networks that are
    ours. dtype: float32 where not given. Raises PerceptionError, with what to do, where it cannot be had.
    """
    choice = _choice(kind, name, list(folders))
    return choice.load(operations=operations, dtype=dtype, device=device)


def _choices(kind: Kind, folders: list[Path]) -> dict[str, _Choice]:
    choices = {name: _Choice(built_in.load, built_in.path) for name, built_in in BUILT_IN[kind].items()}
    for model in FORMATS[kind]:
        for name, path in model.find(folders).items():
            choices.setdefault(name, _Choice(partial(model.load, path), path))
    return choices


def _choice(kind: Kind, name: str, folders: list[Path]) -> _Choice:
    choices = _choices(kind, folders)
    if name not in choices:
        message = f"there is no {kind} estimator named {name!r}; there is {', '.join(choices) or 'none'}"
        if FORMATS[kind]:
            where = " or ".join(str(folder) for folder in folders) or "a folder of such models (none was given)"
            what = ", or ".join(model.what for model in FORMATS[kind])
            message += f". To have more, put {what} into {where}"
        if known := fetchable(kind, name):
            message += f". This one is fetched with `{command(known[0].name)}`"
        else:
            message += f". What can be fetched is shown by `{command('list')}`"
        raise PerceptionError(message)
    return choices[name]
