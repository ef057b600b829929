"""Times of steps, the contenders' taken in turn: what slows the machine down meanwhile slows all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from devtools.inprocess import LoadedPack

from . import contenders
from .runs import Clock, Step, seconds, with_open_runs

WARM_UP = 1


def measure(
    pack: LoadedPack, fusers_file: Path, sizes: list[int], rounds: int, clock: Clock
) -> Iterator[tuple[int, dict[str, list[float]]]]:
    """Yield for each size (in pixels) the seconds by ``clock`` of ``rounds`` steps of each contender."""
    model, control_net = contenders.plain_model(), contenders.control_net()
    fusers = pack.part("nodes.host.fusers").load(fusers_file)
    for size in sizes:
        given = contenders.pictures(size)
        taking_part = [
            contenders.plain(model, given),
            contenders.with_control_nets(model, control_net, given, 1),
            contenders.with_control_nets(model, control_net, given, 2),
            contenders.with_fusers(model, pack, fusers, given, guided=False),
            contenders.with_fusers(model, pack, fusers, given, guided=True),
        ]
        times: dict[str, list[float]] = {contender.name: [] for contender in taking_part}

        def in_turn(steps: list[Step], times: dict[str, list[float]] = times) -> None:
            for turn in range(WARM_UP + rounds):
                for taken, step in zip(times.values(), steps, strict=True):
                    spent = seconds(step, clock)
                    if turn >= WARM_UP:
                        taken.append(spent)

        with_open_runs(taking_part, size, in_turn)
        yield size, times
