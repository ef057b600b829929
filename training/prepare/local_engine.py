"""The default engine: networks in this thread, reading, decoding and PNGs in a pool beside it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

from ..prepared import Sample, Skip
from .batches import Draft, Work
from .config import PrepareConfig
from .sources import Source
from .stages import STAGES, Load, Pack

_AHEAD = 2
"""Batches that are read while another is in the networks."""


def run_here(config: PrepareConfig, source: Source, works: Iterable[Work]) -> Iterator[Work]:
    """Do all stages of each work; they come back in their order."""
    load, *networks, pack = (stage(config, source) if issubclass(stage, Load) else stage(config) for stage in STAGES)
    assert isinstance(load, Load) and isinstance(pack, Pack)  # noqa: S101 - tells the type checker
    with ThreadPoolExecutor(config.workers, thread_name_prefix="prepare") as pool:
        waiting = iter(works)
        loading: deque[tuple[Work, list[Future[Draft | Skip]]]] = deque()
        packing: deque[tuple[Work, list[Future[Sample | Skip]]]] = deque()

        def begin(count: int) -> None:
            for work in islice(waiting, count):
                loading.append((work, [pool.submit(load.one, item) for item in work.ids]))

        def packed() -> Work:
            work, samples = packing.popleft()
            return pack.gathered(work, [sample.result() for sample in samples])

        try:
            begin(_AHEAD)
            while loading:
                work, drafts = loading.popleft()
                begin(1)
                work = load.gathered(work, [draft.result() for draft in drafts])
                for stage in networks:
                    work = stage(work)
                packing.append((work, [pool.submit(pack.one, draft) for draft in work.drafts]))
                if len(packing) > _AHEAD:
                    yield packed()
            while packing:
                yield packed()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
