"""A model's folder from the Hugging Face hub, by its plain addresses: a list of files, then each of them."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from .download import FetchError, Progress, address, discard, download, file_sha256, keep
from .weights import Hub, Weights
from .whole_files import BrokenFileError, check_whole

_LONGEST_TEXT = 1 << 22
"""Bytes of the hub's answer, and of a model's JSON files."""

_CONFIG = "config.json"


@dataclass(frozen=True)
class _File:
    """What the hub says of a file: its bytes, and its SHA-256 where it keeps that (of large files)."""

    size: int
    sha256: str | None


def from_hub(weights: Weights, source: Hub, target: Path, mirror: str | None, progress: Progress | None) -> None:
    """Download a folder beside its place and rename it when all of it is there and checked.

    What is whole of it stays for the next call where one file fails. Raises FetchError.
    """
    site = mirror or os.environ.get("HF_ENDPOINT") or source.site
    part = target.with_name(f"{target.name}.part")
    part.mkdir(exist_ok=True)
    revision, files = _listed(weights, source, site, part)
    for name, file in files.items():
        whole, url = part / name, address(site, f"/{source.repository}/resolve/{revision}/{name}")
        if whole.is_file() and _problem(whole, file) is None:
            continue
        coming = part / f"{name}.part"
        download(url, coming, most=file.size, checked=file.sha256 is not None, progress=progress)
        if problem := _problem(coming, file, Path(name).suffix):
            discard(coming)
            raise FetchError(
                f"what came as {name} of {source} is not that: {problem}. It was removed: fetch again, or from "
                f"another --mirror"
            )
        keep(coming, whole)
    for path in part.iterdir():
        if path.name not in files:  # of an earlier revision
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    if problem := folder_problem(weights, part):
        shutil.rmtree(part)
        raise FetchError(f"what came is not {weights.name}: {problem}. It was removed: fetch from another --mirror")
    part.replace(target)


def folder_problem(weights: Weights, folder: Path) -> str | None:
    """What shows that a folder is not the model, or not all of it."""
    if not (folder / _CONFIG).is_file():
        return f"it has no {_CONFIG}"
    found = sorted(folder.glob("*.safetensors"))
    size = sum(path.stat().st_size for path in found)
    for path in (folder / _CONFIG, *found):
        if problem := _broken(path, path.suffix):
            return f"{path.name}: {problem}"
    return None if size >= weights.least else f"its weights have {size:,} bytes; expected at least {weights.least:,}"


def _listed(weights: Weights, source: Hub, site: str, part: Path) -> tuple[str, dict[str, _File]]:
    """The revision that the hub has now, and what it has of the model's files."""
    url = address(site, f"/api/models/{source.repository}/revision/main?blobs=true")
    listing = part / "listing.part"
    discard(listing)
    try:
        download(url, listing, most=_LONGEST_TEXT, checked=False)
        told: Any = json.loads(listing.read_bytes())
        revision, files = told["sha"], {}
        for entry in told["siblings"]:
            name = entry["rfilename"]
            if re.fullmatch(r"\w[\w.-]*", name, re.ASCII) and any(fnmatch(name, one) for one in source.patterns):
                files[name] = _File(entry["size"], (entry.get("lfs") or {}).get("sha256"))
        if not re.fullmatch("[0-9a-f]{40}", revision):
            raise ValueError(f"its revision is {revision[:80]!r}")
        _check_listed(weights, files)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise FetchError(
            f"{url} does not list the files of a model as the hub does ({type(error).__name__}: {error}): fetch from "
            f"another --mirror"
        ) from error
    finally:
        discard(listing)
        if not any(part.iterdir()):
            part.rmdir()
    part.mkdir(exist_ok=True)
    return revision, files


def _check_listed(weights: Weights, files: Mapping[str, _File]) -> None:
    """Raise ValueError for a list that is not of the model, before anything of it is downloaded."""
    for name, file in files.items():
        most = weights.most if name.endswith(".safetensors") else _LONGEST_TEXT
        if type(file.size) is not int or not 0 < file.size <= most:
            raise ValueError(f"{name} has {file.size!r:.80} bytes; expected {most:,} at most")
        if file.sha256 is not None and not re.fullmatch("[0-9a-f]{64}", file.sha256):
            raise ValueError(f"{name} has the SHA-256 {file.sha256[:80]!r}")
    size = sum(file.size for name, file in files.items() if name.endswith(".safetensors"))
    if _CONFIG not in files or not weights.least <= size <= weights.most:
        raise ValueError(
            f"it has {', '.join(files) or 'nothing'}, with weights of {size:,} bytes; expected {_CONFIG} and "
            f".safetensors of {weights.least:,} to {weights.most:,} bytes"
        )


def _problem(path: Path, file: _File, suffix: str | None = None) -> str | None:
    """What shows that a file is not the one that the hub lists."""
    if (size := path.stat().st_size) != file.size:
        return f"it has {size:,} bytes, and the hub lists {file.size:,}"
    if file.sha256 is not None and (found := file_sha256(path)) != file.sha256:
        return f"it has the SHA-256 {found}, and the hub lists {file.sha256}"
    return _broken(path, suffix or path.suffix)


def _broken(path: Path, suffix: str) -> str | None:
    try:
        if suffix != ".json":
            check_whole(path, suffix)
        elif not isinstance(json.loads(path.read_bytes()), dict):
            return "it is no JSON object"
    except (BrokenFileError, ValueError, RecursionError) as error:
        return f"it cannot be read: {error}"
    return None
