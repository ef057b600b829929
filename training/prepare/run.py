"""Preparing a set, from its source to its last shard."""

from __future__ import annotations

import hashlib
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import torch

from cnc_core.perception import model_path
from training.config import save_config

from ..files import only_run_in
from ..prepared import ArraySpec, Manifest, SetWriter, Skip, array_specs
from .batches import Work
from .config import GIVEN, NO_TEXT, PrepareConfig, open_source
from .diffusion_inpaint import is_diffusion
from .encoders import MINI, caption_dim, encoder_path, model_facts, picture_dim
from .local_engine import run_here
from .ray_engine import run_on_ray
from .sources import Source, SourceError
from .sources.base import printable
from .stages import NOT_BROKEN

ENGINES: dict[str, Callable[[PrepareConfig, Source, Iterable[Work]], Iterator[Work]]] = {
    "local": run_here,
    "ray": run_on_ray,
}


_SAY_EVERY = 30.0
"""Seconds between lines of progress."""


class TooManyBroken(RuntimeError):
    """More items than `max_broken` gave no sample."""


def prepare(config: PrepareConfig, *, say: Callable[[str], None] = print) -> Manifest:
    """Make a prepared set, or go on with it where an earlier run was interrupted; return its manifest.

    Raises FolderInUse where another run is at it, TooManyBroken, PreparedError where the folder holds a set that was
    begun otherwise, SourceError, EncoderError and PerceptionError for sources and models that are not what they should
    be, and OSError where the disk is full. Finished shards stay whatever happens.
    """
    config = replace(config, threads=config.threads or torch.get_num_threads())
    with only_run_in(config.out):
        source = open_source(config)
        ids = sorted(source.ids())[: config.limit]
        if not ids or len(set(ids)) < len(ids):
            raise SourceError(f"the source has {len(ids)} items, {len(set(ids))} of them different")
        for note in (*source.notes(), *_unfit(config)):
            say(note)
        writer = SetWriter(config.out, _plan(config, source, ids))
        save_config(config, config.out / "config.toml")
        missing = writer.missing()
        if missing:
            say(f"{len(ids)} items, {len(missing)} of {writer.manifest.shard_count} shards to prepare")
            _fill(config, source, ids, writer, missing, say)
        manifest = writer.finish()
    counts = ", ".join(f"{count} {reason}" for reason, count in manifest.skipped.items()) or "none"
    say(f"{manifest.samples} samples in {config.out}; left out: {counts}")
    return manifest


def _unfit(config: PrepareConfig) -> list[str]:
    """A warning where the Mini's networks are to see photographs."""
    roles = ["mask", "autoencoder", "image_encoder", "text_encoder"] + ["depth"] * (config.condition == "depth")
    names = [role for role in roles if getattr(config, role) == MINI]
    if config.source == "scenes" or not names:
        return []
    return [
        f"warning: {', '.join(sorted(names))}: mini knows the simple solids of CnC-Mini's world alone; for photographs "
        f"name other models"
    ]


def _fill(
    config: PrepareConfig,
    source: Source,
    ids: list[str],
    writer: SetWriter,
    missing: list[int],
    say: Callable[[str], None],
) -> None:
    skipped = [skip for shard in writer.manifest.shards for skip in shard.skipped]
    began, done, processed, last = time.monotonic(), 0, 0, -math.inf
    todo = sum(len(_of_shard(config, ids, number)) for number in missing)
    finished = ENGINES[config.engine](config, source, _works(config, ids, missing))

    def counted() -> Iterator[Work]:
        nonlocal processed, last
        for work in finished:
            processed += len(work.ids)
            if time.monotonic() - last > _SAY_EVERY:  # a shard may take an hour, and the first word comes at once
                last = time.monotonic()
                say(f"{processed}/{todo} items, {processed / (last - began):.1f} a second")
            skipped.extend(work.skipped)
            _check_broken(skipped, config.max_broken)
            yield work

    for number, works in groupby(counted(), key=lambda work: work.shard):
        parts = list(works)
        writer.write(number, [s for work in parts for s in work.samples], [s for work in parts for s in work.skipped])
        done += sum(len(work.ids) for work in parts)
        rate = done / (time.monotonic() - began)
        left = (todo - done) / rate / 60
        say(f"shard {number:06d}: {done}/{todo} items, {rate:.1f} a second, {left:.0f} minutes left")


def _of_shard(config: PrepareConfig, ids: list[str], number: int) -> list[str]:
    return ids[number * config.shard_size : (number + 1) * config.shard_size]


def _works(config: PrepareConfig, ids: list[str], missing: list[int]) -> Iterator[Work]:
    for number in missing:
        own = _of_shard(config, ids, number)
        for first in range(0, len(own), config.batch_size):
            yield Work(number, tuple(own[first : first + config.batch_size]))


def _check_broken(skipped: list[Skip], limit: int) -> None:
    broken = [skip for skip in skipped if skip.reason not in NOT_BROKEN]
    if len(broken) > limit:
        reasons = ", ".join(f"{count} {reason}" for reason, count in Counter(s.reason for s in broken).most_common())
        examples = "\n".join(f"  {skip.id}: {skip.reason} ({skip.detail})" for skip in broken[:5])
        raise TooManyBroken(
            f"stopped: {len(broken)} items are broken, more than max_broken ({limit}): {reasons}. The first are\n"
            f"{examples}\nLook at them, then raise max_broken or take them out of the source"
        )


def _plan(config: PrepareConfig, source: Source, ids: list[str]) -> Manifest:
    """The manifest before the first shard."""
    digest = hashlib.sha256("\n".join(map(printable, ids)).encode()).hexdigest()
    latent = (config.size // 8, config.size // 8)
    return Manifest(
        image_size=(config.size, config.size),
        latent_size=latent,
        arrays=_arrays(config, latent),
        items=len(ids),
        shard_size=config.shard_size,
        condition=config.condition,
        models=_models(config),
        source={**source.facts(), "ids_sha256": digest},
        options=config.facts(),
    )


def _arrays(config: PrepareConfig, latent: tuple[int, int]) -> dict[str, ArraySpec]:
    with_text = config.text_encoder != NO_TEXT
    return array_specs(
        latent,
        picture_dim(config.image_encoder),
        text_dim=caption_dim(config.text_encoder) if with_text else None,
        captions=config.max_captions,
        deviation=config.deviation,
        source_depth=config.source_depth,
    )


def _models(config: PrepareConfig) -> dict[str, dict[str, str]]:
    """Every model that has a part in the samples, by its role."""
    facts: dict[str, dict[str, str]] = {}
    folders: list[Path] = list(config.models)
    for role, kind, name in (
        ("mask", "saliency", config.mask),
        ("inpainter", "inpainting", config.inpainter),
        ("depth", "depth", config.depth if config.condition == "depth" else None),
    ):
        if name is not None and is_diffusion(name):
            facts[role] = model_facts(name, Path(name))
        elif name is not None:
            facts[role] = model_facts(name, None if name == GIVEN else model_path(kind, name, folders))  # type: ignore[arg-type]
    for role in ("autoencoder", "image_encoder", "text_encoder"):
        name = getattr(config, role)
        facts[role] = model_facts(name, None if name == NO_TEXT else encoder_path(name, role))
    return facts
