"""Checking a prepared set, file by file and value by value, and taking out what is damaged."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file

from ..files import file_hash
from .manifest import ArraySpec, Manifest, PreparedError, ShardEntry
from .manifest_file import DTYPES, read_manifest, write_manifest
from .writer import MASK_MAX, Sample, content_of


def check_size(folder: Path, shard: ShardEntry, name: str) -> None:
    """Raises PreparedError where a shard's file is missing or has not the size that the manifest says."""
    path, expected = folder / name, shard.files[name]["bytes"]
    size = path.stat().st_size if path.is_file() else None
    if size != expected:
        found = "is missing" if size is None else f"has {size} bytes"
        raise PreparedError(f"{path} {found}, its manifest says {expected} bytes; {AGAIN}")


def check_hash(folder: Path, shard: ShardEntry, name: str) -> None:
    """Raises PreparedError where a shard's file is not the one that was written."""
    check_size(folder, shard, name)
    try:
        found = file_hash(folder / name)
    except OSError as error:
        raise PreparedError(f"{folder / name} cannot be read: {error.strerror}; {AGAIN}") from error
    if found != shard.files[name]["sha256"]:
        raise PreparedError(f"{folder / name} has changed since it was written: its checksum differs; {AGAIN}")


def check_header(folder: Path, shard: ShardEntry, arrays: Mapping[str, ArraySpec]) -> None:
    """Raises PreparedError where a shard's arrays are not those of its set, by their names, dtypes and shapes alone."""
    path = folder / f"{shard.name}.safetensors"
    try:
        with safe_open(path, framework="np") as file:
            views = {name: file.get_slice(name) for name in file.keys()}
            found = {name: (view.get_dtype(), tuple(view.get_shape())) for name, view in views.items()}
    except (SafetensorError, OSError) as error:
        raise PreparedError(f"{path} cannot be read: {error}; {AGAIN}") from error
    for name in {**arrays, **found}:
        spec = arrays.get(name)
        expected = None if spec is None else (DTYPES[spec.dtype], (shard.samples, *spec.shape))
        if found.get(name) != expected:
            raise PreparedError(f"{name} in {path} is {found.get(name)}, not {expected}; {AGAIN}")


@dataclass(frozen=True)
class Texts:
    """The ids of a shard's samples, and the captions of each."""

    ids: list[str]
    captions: list[list[str]]


def read_texts(folder: Path, shard: ShardEntry) -> Texts:
    """Read a shard's ids and captions. Raises PreparedError where they are not those of its samples, in their order."""
    path = folder / f"{shard.name}.json"
    try:
        told: Any = json.loads(path.read_bytes().decode())
    except OSError as error:
        raise PreparedError(f"{path} cannot be read: {error.strerror}; {AGAIN}") from error
    except (ValueError, RecursionError) as error:
        raise PreparedError(f"{path} is damaged: {error}; {AGAIN}") from error
    if not isinstance(told, dict):
        raise PreparedError(f"{path} is damaged: it is no JSON object; {AGAIN}")
    ids: Any = told.get("ids")
    captions: Any = told.get("captions")
    if not isinstance(captions, list) or not all(map(_are_texts, [ids, *captions])):
        raise PreparedError(f"{path} is damaged: not every sample has an id and a caption; {AGAIN}")
    if not len(ids) == len(captions) == shard.samples:
        raise PreparedError(f"{path} has {len(ids)} ids and {len(captions)} captions, not {shard.samples}; {AGAIN}")
    if hashlib.sha256(json.dumps(ids).encode()).hexdigest() != shard.ids:
        raise PreparedError(f"{path} has other samples than its manifest says, or in another order; {AGAIN}")
    return Texts(ids, captions)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, str) for one in value)


def damaged_shards(folder: Path) -> dict[int, str]:
    """What is wrong with a set's finished shards, by number: files that are missing or have changed, and arrays whose
    values cannot be. Reads everything."""
    manifest, wrong, seen = read_manifest(folder), {}, set[str]()
    for shard in manifest.shards:
        try:
            for name in shard.files:
                check_hash(folder, shard, name)
            problems = list(_problems(folder, manifest, shard, seen)) if shard.samples else []
        except PreparedError as error:
            problems = [str(error)]
        items = min(manifest.shard_size, manifest.items - shard.number * manifest.shard_size)
        if shard.samples + len(shard.skipped) != items:
            problems.append(f"shard {shard.name} says {shard.samples + len(shard.skipped)} items, not {items}; {AGAIN}")
        if problems:
            wrong[shard.number] = "; ".join(problems)
    return wrong


def unnamed_files(folder: Path) -> list[str]:
    """Files of shards that a complete set's manifest does not name: it has lost what it said of them."""
    manifest = read_manifest(folder)
    named = {name for shard in manifest.shards for name in shard.files}
    found = sorted(path.name for path in folder.iterdir() if _SHARD.fullmatch(path.name))
    return [name for name in found if name not in named] if manifest.complete else []


def drop_shards(folder: Path, numbers: Collection[int]) -> None:
    """Take shards out of the manifest, so that `prepare` makes them again."""
    manifest = read_manifest(folder)
    kept = tuple(shard for shard in manifest.shards if shard.number not in numbers)
    write_manifest(folder, replace(manifest, shards=kept, complete=False))


_SHARD = re.compile(r"\d{6}\.(safetensors|json|tar)")


def _problems(folder: Path, manifest: Manifest, shard: ShardEntry, seen: set[str]) -> Iterator[str]:
    check_header(folder, shard, manifest.arrays)
    arrays = load_file(folder / f"{shard.name}.safetensors")
    for name, array in arrays.items():
        yield from _array_problems(name, array)
    texts = read_texts(folder, shard)
    ids = texts.ids
    rows = ({name: array[row] for name, array in arrays.items()} for row in range(shard.samples))
    samples = (Sample(*parts) for parts in zip(ids, map(tuple, texts.captions), rows, strict=True))
    if content_of(samples) != shard.content:
        yield f"{folder / shard.name} holds other samples than the manifest's content says; {AGAIN}"
    if len(set(ids) - seen) < shard.samples:
        yield "two samples have the same id"
    seen.update(ids)


def _array_problems(name: str, array: np.ndarray) -> Iterator[str]:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        yield f"{name} has values that are not numbers"
    elif name == "mask" and not np.isin(array, (0, MASK_MAX)).all():
        yield f"mask has values other than 0 and {MASK_MAX}"
    elif name == "caption_count" and array.min() < 1:
        yield "a sample has no caption"


AGAIN = "copy the set again, or `check --repair` it and run its `prepare` command again"
