"""Writing a prepared set, a shard at a time."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from ..files import file_hash, replacing
from .manifest import ArraySpec, Manifest, PreparedError, ShardEntry, Skip, sum_of_digests
from .manifest_file import FILE, read_manifest, write_manifest

DEPTH_MAX = 65535
"""What 1.0 is stored as in a depth map."""
MASK_MAX = 255
"""What 1.0 is stored as in a mask."""
TOKENS = 77


@dataclass(frozen=True, eq=False)
class Sample:
    """One row of a shard: its arrays by name, its captions (at least one, which may be empty), and its pictures as
    encoded files by name and ending, as in "source.png"."""

    id: str
    captions: tuple[str, ...]
    arrays: dict[str, np.ndarray]
    pictures: dict[str, bytes] = field(default_factory=dict)

    def digest(self) -> str:
        """SHA-256 of id, captions and arrays, in hex; pictures are other forms of the same and not in it."""
        total = hashlib.sha256(json.dumps([self.id, *self.captions]).encode())
        for name in sorted(self.arrays):
            total.update(name.encode())
            total.update(np.ascontiguousarray(self.arrays[name]).data)
        return total.hexdigest()


def content_of(samples: Iterable[Sample]) -> str:
    """The content of a shard with these samples: the sum of their digests."""
    return sum_of_digests([sample.digest() for sample in samples])


def array_specs(
    latent_size: tuple[int, int],
    embed_dim: int,
    *,
    text_dim: int | None = None,
    captions: int = 1,
    deviation: bool = False,
    source_depth: bool = False,
) -> dict[str, ArraySpec]:
    """The arrays of a set for latents of (h, w).

    embed_dim: of the image encoder's embeddings. text_dim: of the text encoder's states, None to leave them out;
    captions: for up to how many a sample. deviation: the latents' as well. source_depth: depth of the whole I_s too.
    """
    height, width = 8 * latent_size[0], 8 * latent_size[1]
    depth = "near = 65535, each map's own minimum and maximum at 0 and 65535"
    specs = {
        "latents": ArraySpec("float16", (4, *latent_size), "mean of the autoencoder's posterior of I_s, scaled"),
        "fg_depth": ArraySpec("uint16", (height, width), f"of I_f = I_s * M: {depth}"),
        "bg_depth": ArraySpec("uint16", (height, width), f"of I_b: {depth}"),
        "mask": ArraySpec("uint8", (height, width), "M: 255 inside the salient object, 0 outside"),
        "source_embed": ArraySpec("float32", (embed_dim,), "image_embeds of I_s, not normalised"),
        "background_embed": ArraySpec("float32", (embed_dim,), "image_embeds of I_b, not normalised"),
        "caption_count": ArraySpec("uint8", (), "how many rows of text hold a caption"),
    }
    if deviation:
        specs["latent_deviation"] = ArraySpec("float16", (4, *latent_size), "of the same posterior, scaled alike")
    if source_depth:
        specs["source_depth"] = ArraySpec("uint16", (height, width), f"of I_s: {depth}")
    if text_dim is not None:
        shape = (captions, TOKENS, text_dim)
        specs["text"] = ArraySpec("float16", shape, "the text encoder's last states, zeros where there is no caption")
    return specs


class SetWriter:
    """Writes a set's shards in any order, each whole or not at all; finished ones are never written again.

        writer = SetWriter(folder, Manifest(image_size=..., latent_size=..., arrays=array_specs(...), items=..., ...))
        for number in writer.missing():
            writer.write(number, samples, skipped)
        writer.finish()

    One process at a time (`training.files.only_run_in`). A folder that holds a set begun with another manifest is
    refused by PreparedError.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.manifest = folder, manifest
        if not (folder / FILE).exists():
            write_manifest(folder, manifest)
            return
        begun = read_manifest(folder)
        if differences := begun.differences(manifest):
            raise PreparedError(
                f"{folder} holds a set that was begun otherwise: {'; '.join(differences[:5])}. Go on as it was begun, "
                f"or choose another folder"
            )
        self.manifest = replace(begun, shards=tuple(shard for shard in begun.shards if self._is_there(shard)))
        for left in folder.glob("*.new"):  # by a run that was killed
            left.unlink()

    def missing(self) -> list[int]:
        """The numbers of the shards that are not finished."""
        done = {shard.number for shard in self.manifest.shards}
        return [number for number in range(self.manifest.shard_count) if number not in done]

    def write(self, number: int, samples: Sequence[Sample], skipped: Sequence[Skip] = ()) -> ShardEntry:
        """Write one shard and enter it in the manifest.

        Raises PreparedError for samples that are not as the manifest says, OSError where the disk is full.
        """
        self._check(samples)
        name = f"{number:06d}"
        files: dict[str, Callable[[Path], None]] = {}
        if samples:
            files[f"{name}.safetensors"] = lambda path: self._save_arrays(path, samples)
            files[f"{name}.json"] = lambda path: _save_texts(path, samples)
            if samples[0].pictures:
                files[f"{name}.tar"] = lambda path: _save_pictures(path, name, samples)
        facts = {}
        for file, save in files.items():
            with replacing(self.folder / file) as path:
                save(path)
                facts[file] = {"bytes": path.stat().st_size, "sha256": file_hash(path)}
        ids = hashlib.sha256(json.dumps([sample.id for sample in samples]).encode()).hexdigest()
        entry = ShardEntry(number, len(samples), ids, content_of(samples), facts, tuple(skipped))
        manifest = self.manifest.with_shard(entry)
        write_manifest(self.folder, manifest)
        self.manifest = manifest
        return entry

    def finish(self) -> Manifest:
        """Mark the set complete. Raises PreparedError where shards are missing."""
        if missing := self.missing():
            raise PreparedError(f"{self.folder} lacks {len(missing)} shards, the first is {missing[0]:06d}")
        self.manifest = replace(self.manifest, complete=True)
        write_manifest(self.folder, self.manifest)
        return self.manifest

    def _is_there(self, shard: ShardEntry) -> bool:
        """Whether a shard's files are there, each of its size; else it is made again."""
        paths = {self.folder / name: facts["bytes"] for name, facts in shard.files.items()}
        return all(path.is_file() and path.stat().st_size == size for path, size in paths.items())

    def _check(self, samples: Sequence[Sample]) -> None:
        specs = self.manifest.arrays
        for sample in samples:
            if sample.arrays.keys() != specs.keys():
                raise PreparedError(f"sample {sample.id} has arrays {sorted(sample.arrays)}, not {sorted(specs)}")
            if not sample.captions:
                raise PreparedError(f"sample {sample.id} has no caption: give it an empty one")
            for name, spec in specs.items():
                array = sample.arrays[name]
                if (array.dtype.name, array.shape) != (spec.dtype, spec.shape):
                    raise PreparedError(
                        f"{name} of sample {sample.id} is {array.dtype.name} {array.shape}, not "
                        f"{spec.dtype} {spec.shape}"
                    )
        if len({sample.id for sample in samples}) < len(samples):
            raise PreparedError("two samples of one shard have the same id")

    def _save_arrays(self, path: Path, samples: Sequence[Sample]) -> None:
        # stack keeps the strides of what it is given, and save_file writes memory as it lies
        rows = {name: np.stack([sample.arrays[name] for sample in samples]) for name in self.manifest.arrays}
        save_file({name: np.ascontiguousarray(array) for name, array in rows.items()}, path)


def _save_texts(path: Path, samples: Sequence[Sample]) -> None:
    told = {"ids": [sample.id for sample in samples], "captions": [list(sample.captions) for sample in samples]}
    path.write_text(json.dumps(told, ensure_ascii=False, indent=0) + "\n", encoding="utf-8", newline="\n")


def _save_pictures(path: Path, name: str, samples: Sequence[Sample]) -> None:
    """WebDataset: the files of one sample share a key and follow each other. No times or owners are kept."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for row, sample in enumerate(samples):
            told = json.dumps({"id": sample.id, "captions": list(sample.captions)}, ensure_ascii=False).encode()
            for ending, content in {**sample.pictures, "json": told}.items():
                info = tarfile.TarInfo(f"{name}-{row:06d}.{ending}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
