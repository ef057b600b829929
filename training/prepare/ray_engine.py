"""The engine for many GPUs and machines: Ray Data, with a pool of actors for each stage."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from .batches import Work
from .config import PrepareConfig
from .sources import Source, SourceError
from .stages import STAGES, Load, Stage


def run_on_ray(config: PrepareConfig, source: Source, works: Iterable[Work]) -> Iterator[Work]:
    """Do all stages of each work on the cluster that `RAY_ADDRESS` names, or on one of this machine's.

    A row is a whole `Work`, so batches are the same as in the local engine, and so are the bytes on machines of one
    kind. `workers` is the number of actors a stage. Models and sources are read where the actors are: on every machine
    by the same paths. Raises SourceError where ray is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise SourceError("the engine ray needs Ray Data: `pip install 'ray[data]'`") from error
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    gpus = 1 if config.device != "cpu" and ray.cluster_resources().get("GPU") else 0
    rows: Any = ray.data.from_items([{"work": work} for work in works])
    for stage in STAGES:
        rows = rows.map(
            _Actor,
            fn_constructor_args=(stage, config, source if issubclass(stage, Load) else None),
            num_cpus=0 if stage.networks else 1,
            num_gpus=gpus if stage.networks else 0,
            concurrency=config.workers,
        )
    for row in rows.iter_rows():
        yield row["work"]


class _Actor:
    """A stage where Ray runs it."""

    def __init__(self, stage: type[Stage], config: PrepareConfig, source: Source | None) -> None:
        self._stage = stage(config, source) if issubclass(stage, Load) else stage(config)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"work": self._stage(row["work"])}
