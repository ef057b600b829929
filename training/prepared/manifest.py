"""What a prepared set is made of, and how far it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

_MODULUS = 1 << 256


class PreparedError(ValueError):
    """A prepared set that is not what it should be; the message says what is wrong and what to do."""


@dataclass(frozen=True)
class ArraySpec:
    """One array of every shard: a row's shape, its dtype by numpy's name, and what it is."""

    dtype: str
    shape: tuple[int, ...]
    about: str = ""


@dataclass(frozen=True)
class Skip:
    """An item of the source that gave no sample: reason is one of few words, detail what happened."""

    id: str
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class ShardEntry:
    """A finished shard. files: SHA-256 and bytes by name. content: the sum of its samples' digests, in hex."""

    number: int
    samples: int
    ids: str
    content: str
    files: dict[str, dict[str, Any]]
    skipped: tuple[Skip, ...] = ()

    @property
    def name(self) -> str:
        """What its files are called, without their endings."""
        return f"{self.number:06d}"


@dataclass(frozen=True)
class Manifest:
    """All that is said once about a set.

    image_size: (H, W) of pictures and depth maps; latent_size: (h, w), an eighth of it. arrays: what each shard
    holds, by name. condition: what fg_depth and bg_depth are maps of. models: by role, each with its name and
    SHA-256. source, options: whence the set was made and how. items: how many the source has; shard k is made of
    its items k * shard_size and on, in the order of their ids. complete: no shard is missing.
    """

    image_size: tuple[int, int]
    latent_size: tuple[int, int]
    arrays: dict[str, ArraySpec]
    items: int
    shard_size: int
    condition: str = "depth"
    models: dict[str, dict[str, str]] = field(default_factory=dict)
    source: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    shards: tuple[ShardEntry, ...] = ()
    complete: bool = False

    @property
    def samples(self) -> int:
        """How many samples the finished shards hold."""
        return sum(shard.samples for shard in self.shards)

    @property
    def skipped(self) -> dict[str, int]:
        """How many items gave no sample, by reason."""
        return dict(sorted(Counter(skip.reason for shard in self.shards for skip in shard.skipped).items()))

    @property
    def content(self) -> str:
        """A hash of all samples that depends neither on their order nor on the shards' size."""
        return f"{sum(int(shard.content, 16) for shard in self.shards) % _MODULUS:064x}"

    @property
    def shard_count(self) -> int:
        """How many shards the whole set has."""
        return -(-self.items // self.shard_size)

    def with_shard(self, entry: ShardEntry) -> Manifest:
        """The manifest with one more finished shard."""
        kept = [shard for shard in self.shards if shard.number != entry.number]
        return replace(self, shards=tuple(sorted([*kept, entry], key=lambda shard: shard.number)))

    def join_differences(self, other: Manifest) -> list[str]:
        """In words, what keeps two sets from being read as one."""

        def told(manifest: Manifest) -> dict[str, Any]:
            models = {name: manifest.models.get(name, {}) for name in ("autoencoder", "image_encoder", "text_encoder")}
            shapes = {name: spec.shape for name, spec in manifest.arrays.items()}
            if "text" in shapes:
                shapes["text"] = shapes["text"][1:]  # a set may keep more captions than another
            return {
                "image_size": manifest.image_size,
                "condition": manifest.condition,
                **{name: model.get("sha256", model.get("name")) for name, model in models.items()},
                "arrays": shapes,
            }

        mine, theirs = _flat(told(self)), _flat(told(other))
        names = [name for name in {**mine, **theirs} if mine.get(name) != theirs.get(name)]
        return [f"{name} is {mine.get(name)!r} in one, {theirs.get(name)!r} in another" for name in names]

    def differences(self, other: Manifest) -> list[str]:
        """In words, what two sets disagree on, apart from how far they are."""
        mine, theirs = (_flat({**asdict(m), "shards": None, "complete": None}) for m in (self, other))
        missing = object()
        names = [name for name in {**mine, **theirs} if mine.get(name, missing) != theirs.get(name, missing)]
        return [f"{name} is {mine.get(name)!r} there, {theirs.get(name)!r} here" for name in names]


def joined(manifests: Sequence[Manifest]) -> Manifest:
    """What is said of several sets that are read as one: all their shards, and as many captions as the richest has.

    Raises PreparedError for sets of different sizes, conditions, arrays or encoders.
    """
    first = manifests[0]
    arrays = dict(first.arrays)
    for other in manifests[1:]:
        differing = first.join_differences(other)
        if differing:
            raise PreparedError(f"the sets do not belong together: {'; '.join(differing)}; prepare them alike")
        if "text" in arrays:
            arrays["text"] = max(arrays["text"], other.arrays["text"], key=lambda spec: spec.shape[0])
    shards = tuple(shard for manifest in manifests for shard in manifest.shards)
    items, complete = sum(manifest.items for manifest in manifests), all(manifest.complete for manifest in manifests)
    return replace(first, arrays=arrays, items=items, shards=shards, complete=complete)


def sum_of_digests(digests: list[str]) -> str:
    """The sum of hashes in hex, modulo 2 ** 256: the same in any order."""
    return f"{sum(int(digest, 16) for digest in digests) % _MODULUS:064x}"


def _flat(told: Any, name: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted names, and lists and tuples alike."""
    if isinstance(told, dict) and told:
        return {k: v for key, value in told.items() for k, v in _flat(value, f"{name}.{key}".lstrip(".")).items()}
    return {name: list(told) if isinstance(told, tuple) else told}
