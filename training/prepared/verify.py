"""Checking a prepared set, file by file and value by value, and taking out what is damaged."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from ..files import file_hash
from .manifest import ArraySpec, Manifest, PreparedError, ShardEntry, read_manifest, write_manifest
from .writer import MASK_MAX


def check_size(folder: Path, shard: ShardEntry, name: str) -> None:
    """Raises PreparedError where a shard's file is missing or has not the size that the manifest says."""
    path, expected = folder / name, shard.files[name]["bytes"]
    size = path.stat().st_size if path.exists() else None
    if size != expected:
        found = "is missing" if size is None else f"has {size} bytes"
        raise PreparedError(f"{path} {found}, its manifest says {expected} bytes; {AGAIN}")


def check_hash(folder: Path, shard: ShardEntry, name: str) -> None:
    """Raises PreparedError where a shard's file is not the one that was written."""
    check_size(folder, shard, name)
    if file_hash(folder / name) != shard.files[name]["sha256"]:
        raise PreparedError(f"{folder / name} has changed since it was written: its checksum differs; {AGAIN}")


def damaged_shards(folder: Path) -> dict[int, str]:
    """What is wrong with a set's finished shards, by number: files that are missing or have changed, and arrays whose
    values cannot be. Reads everything."""
    manifest, wrong, seen = read_manifest(folder), {}, set[str]()
    for shard in manifest.shards:
        try:
            for name in shard.files:
                check_hash(folder, shard, name)
            problems = list(_problems(folder, manifest, shard, seen)) if shard.samples else []
        except (PreparedError, SafetensorError, json.JSONDecodeError, OSError) as error:
            problems = [str(error)]
        if problems:
            wrong[shard.number] = "; ".join(problems)
    return wrong


def drop_shards(folder: Path, numbers: Collection[int]) -> None:
    """Take shards out of the manifest, so that `prepare` makes them again."""
    manifest = read_manifest(folder)
    kept = tuple(shard for shard in manifest.shards if shard.number not in numbers)
    write_manifest(folder, replace(manifest, shards=kept, complete=False))


def _problems(folder: Path, manifest: Manifest, shard: ShardEntry, seen: set[str]) -> Iterator[str]:
    arrays = load_file(folder / f"{shard.name}.safetensors")
    for name, spec in manifest.arrays.items():
        yield from _array_problems(name, arrays.get(name), spec, shard.samples)
    text = json.loads((folder / f"{shard.name}.json").read_text(encoding="utf-8"))
    if not len(text["ids"]) == len(text["captions"]) == shard.samples or not all(text["captions"]):
        yield "not every sample has an id and a caption"
    if len(set(text["ids"]) - seen) < shard.samples:
        yield "two samples have the same id"
    seen.update(text["ids"])


def _array_problems(name: str, array: np.ndarray | None, spec: ArraySpec, samples: int) -> Iterator[str]:
    if array is None or (array.dtype.name, array.shape) != (spec.dtype, (samples, *spec.shape)):
        yield f"{name} is not {spec.dtype} {(samples, *spec.shape)}"
    elif array.dtype.kind == "f" and not np.isfinite(array).all():
        yield f"{name} has values that are not numbers"
    elif name == "mask" and not np.isin(array, (0, MASK_MAX)).all():
        yield f"mask has values other than 0 and {MASK_MAX}"
    elif name == "caption_count" and array.min() < 1:
        yield "a sample has no caption"


AGAIN = "copy the set again, or `check --repair` it and run its `prepare` command again"
