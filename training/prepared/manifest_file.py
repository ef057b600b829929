"""`manifest.json`: a set's manifest as it lies in its folder, with a checksum of its own, and taken for nothing less.

What is read is exactly what was written, or refused: every field has its type, every number its range, and the text
is the one that these fields give.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import typing
from pathlib import Path
from typing import Any

from ..files import replacing
from .manifest import Manifest, PreparedError, ShardEntry

SCHEMA = 1
FILE = "manifest.json"
_CHECKSUM = "sha256"
_DIGEST = re.compile("[0-9a-f]{64}")

DTYPES = {"float16": "F16", "float32": "F32", "uint16": "U16", "uint8": "U8"}
"""The dtypes of arrays, by numpy's name and by that of safetensors."""


def read_manifest(folder: Path) -> Manifest:
    """Read a set's manifest.

    Raises PreparedError where there is none, for one of another schema, and for one that is not as it was written. One
    without a checksum is of a set that was prepared before there was one: its fields are checked all the same.
    """
    path = folder / FILE
    content, told = _read(path)
    checksum, schema = told.pop(_CHECKSUM, None), told.get("schema")
    if type(schema) is not int or schema != SCHEMA:
        raise PreparedError(f"{path} has schema {schema!r:.100}; this code reads {SCHEMA}: update it, or prepare anew")
    try:
        if checksum is not None and _text(told).encode() != content:
            raise ValueError("it has changed since it was written, its checksum differs")
        derived = {name: told.pop(name, None) for name in ("samples", "skipped", "content")}
        manifest: Manifest = _typed(Manifest, {name: told[name] for name in told if name != "schema"}, "it")
        _check(manifest)
        for name, value in derived.items():
            if json.dumps(value) != json.dumps(found := getattr(manifest, name)):
                raise ValueError(f"{name} is {value!r:.100}, its shards give {found!r:.100}")
    except ValueError as error:
        raise PreparedError(f"{path} is damaged: {error}; copy the set again, or prepare anew") from error
    return manifest


def has_checksum(folder: Path) -> bool:
    """Whether any change of a set's manifest is noticed, which one of an earlier version is not able to."""
    return _CHECKSUM in _read(folder / FILE)[1]


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write it whole or not at all."""
    derived = {"samples": manifest.samples, "skipped": manifest.skipped, "content": manifest.content}
    with replacing(folder / FILE) as path:
        text = _text({"schema": SCHEMA, **derived, **dataclasses.asdict(manifest)})
        path.write_text(text, encoding="utf-8", newline="\n")


def _text(told: dict[str, Any]) -> str:
    """The file's text: the fields, and before them the SHA-256 of what they are without it."""

    def dumped(value: dict[str, Any]) -> str:
        return json.dumps(value, indent=1, ensure_ascii=False) + "\n"

    return dumped({_CHECKSUM: hashlib.sha256(dumped(told).encode()).hexdigest(), **told})


def _read(path: Path) -> tuple[bytes, dict[str, Any]]:
    """The file's bytes, and the JSON object that they are."""
    try:
        content = path.read_bytes()
        told = json.loads(content.decode(), parse_constant=_refuse)
    except FileNotFoundError:
        raise PreparedError(f"{path.parent} is no prepared set: it has no {FILE}; make one with `prepare`") from None
    except OSError as error:
        raise PreparedError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise PreparedError(f"{path} is damaged: {error}; copy the set again, or prepare anew") from error
    return content, told if isinstance(told, dict) else {}


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")


def _typed(kind: Any, value: Any, place: str) -> Any:
    """A value of JSON as its field's type: a dataclass, dict, tuple, int (of 0 or more), str or bool.

    Raises ValueError for another, with its place.
    """
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        kinds = typing.get_type_hints(kind)
        needed = {one.name for one in dataclasses.fields(kind) if _is_required(one)}
        if not needed <= value.keys() <= kinds.keys():
            raise ValueError(f"{place} has the fields {', '.join(value)}; expected {', '.join(kinds)}")
        return kind(**{name: _typed(kinds[name], part, f"{place}.{name}") for name, part in value.items()})  # type: ignore[operator]
    if origin is dict and isinstance(value, dict):
        return {name: _typed(parts[1], part, f"{place}.{name}") for name, part in value.items()}
    if origin is tuple and isinstance(value, list) and (parts[-1] is ... or len(value) == len(parts)):
        return tuple(_typed(parts[0], part, f"{place}[{index}]") for index, part in enumerate(value))
    if type(value) is kind and (kind is not int or value >= 0):
        return value
    raise ValueError(f"{place} is {value!r:.100}; expected {_described(kind)}")


def _is_required(one: dataclasses.Field[Any]) -> bool:
    return one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING


def _described(kind: Any) -> str:
    if typing.get_origin(kind) is tuple:
        return "a list" if typing.get_args(kind)[-1] is ... else f"a list of {len(typing.get_args(kind))}"
    named = {str: "a text", int: "a whole number of 0 or more", bool: "true or false"}
    return named.get(kind, "an object")


def _check(manifest: Manifest) -> None:
    """Raise ValueError for fields that do not fit together."""
    height, width = manifest.image_size
    if not height or (height, width) != tuple(8 * side for side in manifest.latent_size) or not manifest.shard_size:
        raise ValueError(
            f"image_size is {manifest.image_size}, latent_size {manifest.latent_size}, shard_size {manifest.shard_size}"
        )
    for name, spec in manifest.arrays.items():
        if spec.dtype not in DTYPES or (name in ("mask", "fg_depth", "bg_depth") and spec.shape != (height, width)):
            raise ValueError(f"arrays.{name} is {spec.dtype} {spec.shape}, for pictures of {height} x {width}")
    for before, shard in zip((None, *manifest.shards), manifest.shards):  # noqa: B905  the last one is before none
        if before is not None and before.number >= shard.number:
            raise ValueError(f"shard {shard.number} comes after shard {before.number}")
        _check_shard(shard, manifest)
    if manifest.complete and len(manifest.shards) != manifest.shard_count:
        raise ValueError(f"it is complete with {len(manifest.shards)} of {manifest.shard_count} shards")


def _check_shard(shard: ShardEntry, manifest: Manifest) -> None:
    of_samples = {f"{shard.name}.safetensors", f"{shard.name}.json"} if shard.samples else set()
    fits: Any = (
        shard.number < manifest.shard_count
        and shard.samples <= manifest.shard_size
        and of_samples <= shard.files.keys() <= of_samples | {f"{shard.name}.tar"}
        and _DIGEST.fullmatch(shard.ids)
        and _DIGEST.fullmatch(shard.content)
    )
    for facts in shard.files.values():
        digest, size = facts.get("sha256"), facts.get("bytes")
        fits = fits and facts.keys() == {"sha256", "bytes"} and type(size) is int and size >= 0
        fits = fits and isinstance(digest, str) and _DIGEST.fullmatch(digest)
    if not fits:
        raise ValueError(f"shard {shard.number} has wrong numbers, files or checksums")
