"""Reading a prepared set: any rows, in any order, straight from memory maps."""

from __future__ import annotations

import bisect
import hashlib
import tarfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .manifest import ArraySpec, Manifest, PreparedError, ShardEntry, joined
from .manifest_file import read_manifest
from .verify import AGAIN, Texts, check_hash, check_header, check_size, damaged_shards, read_texts, unnamed_files
from .writer import DEPTH_MAX, MASK_MAX

_FULL_SCALE = {torch.uint16: DEPTH_MAX, torch.uint8: MASK_MAX}


def to_float(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The arrays as networks take them: float32, depth maps and masks in [0, 1], counts as int64.

    Works on any device, so that what travels there is the small form.
    """

    def converted(name: str, value: Tensor) -> Tensor:
        if name == "caption_count":
            return value.long()
        scale = _FULL_SCALE.get(value.dtype)
        return value.float().div_(scale) if scale else value.float()

    return {name: converted(name, value) for name, value in batch.items()}


class PreparedSet:
    """The samples of a folder that `prepare` has written, numbered from 0 in the order of their ids.

    Of several folders, those of the first come first, and so on. Opening checks the manifest, and each shard's sizes,
    types and shapes. verify: check a file's checksum when it is first used. partial: take the finished shards of a set
    that is not complete, else it is refused, since the order of training follows from the number of samples. Raises
    PreparedError for what is missing, damaged or unfinished, and for folders that do not belong together.
    """

    def __init__(self, *folders: Path, verify: bool = True, partial: bool = False) -> None:
        self.folders = tuple(map(Path, folders))
        manifests = [read_manifest(folder) for folder in self.folders]
        for folder, manifest in zip(self.folders, manifests, strict=True):
            if not manifest.complete and not partial:
                raise PreparedError(
                    f"{folder} is unfinished: {len(manifest.shards)} of {manifest.shard_count} shards; run the same "
                    f"`prepare` command again to finish it"
                )
        self.manifest = joined(manifests)
        self.content = _content(manifests)
        self._check_on_use = verify
        self._shards = [
            _Shard(folder, shard, manifest.arrays)
            for folder, manifest in zip(self.folders, manifests, strict=True)
            for shard in manifest.shards
            if shard.samples
        ]
        self._ends = list(accumulate(shard.entry.samples for shard in self._shards))
        self._arrays: dict[int, dict[str, Tensor]] = {}
        self._texts: dict[int, Texts] = {}
        self._tars: set[int] = set()
        for shard in self._shards:
            for name in shard.entry.files:
                check_size(shard.folder, shard.entry, name)
            check_header(shard.folder, shard.entry, shard.arrays)

    @property
    def name(self) -> str:
        """Its folders, for messages."""
        return ", ".join(map(str, self.folders))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """One sample, as `batch` gives it, without the first axis."""
        return {name: value[0] for name, value in self.batch([index]).items()}

    def __getstate__(self) -> dict[str, Any]:
        """Without what is mapped: another process maps it again."""
        return {**self.__dict__, "_arrays": {}, "_texts": {}}

    def batch(
        self,
        indices: Sequence[int],
        *,
        raw: bool = False,
        names: Collection[str] | None = None,
        captions: Sequence[int] | None = None,
    ) -> dict[str, Tensor]:
        """The arrays of these samples by name, (B, ...) each, as `to_float` gives them.

        raw: as they are stored instead, which is half the bytes. names: only these arrays. captions: of each sample
        the states of this caption alone, so that text is (B, 77, C). Raises IndexError for an index out of range.
        """
        places = [self._place(index) for index in indices]
        sources = [self._mapped(shard) for shard, _ in places]
        out = {}
        for name, spec in self.manifest.arrays.items():
            if names is not None and name not in names:
                continue
            chosen = captions if name == "text" else None
            shape = spec.shape if chosen is None else spec.shape[1:]
            rows = torch.empty((len(places), *shape), dtype=getattr(torch, spec.dtype))
            for number, (row, arrays, (_, place)) in enumerate(zip(rows, sources, places, strict=True)):
                if chosen is not None:
                    row.copy_(arrays[name][place, chosen[number]])
                elif name == "text":  # of sets that are joined, one may have fewer captions
                    stored = arrays[name][place]
                    row[: len(stored)], row[len(stored) :] = stored, 0
                else:
                    row.copy_(arrays[name][place])
            out[name] = rows
        return out if raw else to_float(out)

    def captions(self, index: int) -> tuple[str, ...]:
        """All captions of a sample, at least one; `text` holds the states of the first ones."""
        shard, row = self._place(index)
        return tuple(self._text(shard).captions[row])

    def id(self, index: int) -> str:
        """A sample's id, the same however the set is sharded."""
        shard, row = self._place(index)
        return self._text(shard).ids[row]

    def verify(self) -> None:
        """Read every file and compare its checksum and values. Raises PreparedError with all that is wrong."""
        wrong = [text for folder in self.folders for text in damaged_shards(folder).values()]
        wrong += [
            f"{folder / name} is not in the manifest" for folder in self.folders for name in unnamed_files(folder)
        ]
        if wrong:
            raise PreparedError("\n".join(wrong))

    def pictures(self, index: int) -> dict[str, bytes]:
        """A sample's files from the shard's tar, by ending ("source.png"); none where there is no tar."""
        number, row = self._place(index)
        shard = self._shards[number]
        path = shard.folder / f"{shard.entry.name}.tar"
        if path.name not in shard.entry.files:
            return {}
        if number not in self._tars:
            self._check_on_first_use(shard, path.name)
            self._tars.add(number)
        found = {}
        try:
            with tarfile.open(path) as tar:
                for member in tar:
                    key, _, ending = member.name.partition(".")
                    content = tar.extractfile(member)
                    if key == f"{shard.entry.name}-{row:06d}" and content is not None:
                        found[ending] = content.read()
        except (tarfile.TarError, OSError, ValueError) as error:
            raise PreparedError(f"{path} is damaged: {error}; {AGAIN}") from error
        if not found:
            raise PreparedError(f"{path} is damaged: it has nothing of sample {row}; {AGAIN}")
        return found

    def _place(self, index: int) -> tuple[int, int]:
        """The shard of a sample, counted among those that have samples, and its row there."""
        if not 0 <= index < len(self):
            raise IndexError(f"there is no sample {index} among {len(self)}")
        shard = bisect.bisect_right(self._ends, index)
        return shard, index - (self._ends[shard - 1] if shard else 0)

    def _mapped(self, number: int) -> dict[str, Tensor]:
        if number not in self._arrays:
            shard = self._shards[number]
            name = f"{shard.entry.name}.safetensors"
            self._check_on_first_use(shard, name)
            self._arrays[number] = shard.opened(name)
        return self._arrays[number]

    def _text(self, number: int) -> Texts:
        if number not in self._texts:
            shard = self._shards[number]
            self._check_on_first_use(shard, f"{shard.entry.name}.json")
            self._texts[number] = read_texts(shard.folder, shard.entry)
        return self._texts[number]

    def _check_on_first_use(self, shard: _Shard, name: str) -> None:
        if self._check_on_use:
            check_hash(shard.folder, shard.entry, name)


@dataclass(frozen=True)
class _Shard:
    """A shard where it lies, and the arrays that its set has."""

    folder: Path
    entry: ShardEntry
    arrays: Mapping[str, ArraySpec]

    def opened(self, name: str) -> dict[str, Tensor]:
        """Its arrays, mapped."""
        path = self.folder / name
        check_header(self.folder, self.entry, self.arrays)  # it may have been replaced since the set was opened
        try:
            with safe_open(path, framework="pt") as file:
                return {array: file.get_tensor(array) for array in self.arrays}
        except (SafetensorError, OSError) as error:
            raise PreparedError(f"{path} cannot be read: {error}; {AGAIN}") from error


def _content(manifests: Sequence[Manifest]) -> str:
    """A hash of all samples; of several sets it depends on their order, as the order of training does."""
    contents = [manifest.content for manifest in manifests]
    return contents[0] if len(contents) == 1 else hashlib.sha256("".join(contents).encode()).hexdigest()
