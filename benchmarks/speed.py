"""Times of steps, the contenders' taken in turn: what slows the machine down meanwhile slows all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cnc_core import FuserConfig
from devtools.inprocess import LoadedPack

from . import contenders
from .rows import LAYER_ROWS
from .runs import Clock, Step, seconds, with_open_runs

WARM_UP = 1


def measure(
    pack: LoadedPack,
    fusers_file: Path,
    sizes: list[int],
    rounds: int,
    clock: Clock,
    *,
    networks: FuserConfig = contenders.FULL,
    layers_alone: bool = False,
) -> Iterator[tuple[int, dict[str, list[float]]]]:
    """Yield for each size (in pixels) the seconds by ``clock`` of ``rounds`` steps of each contender.

    With ``layers_alone`` these are the plain model, the two layers and the rows of more.
    """
    model = contenders.plain_model(networks)
    control_net = None if layers_alone else contenders.control_net(networks)
    fusers = pack.part("nodes.host.fusers").load(fusers_file)
    for size in sizes:
        given = contenders.pictures(size)
        taking_part = [contenders.plain(model, given)]
        if control_net is not None:
            taking_part += [contenders.with_control_nets(model, control_net, given, count) for count in (1, 2)]
            taking_part.append(contenders.with_fusers(model, pack, fusers, given, guided=False))
        taking_part.append(contenders.with_fusers(model, pack, fusers, given, guided=True))
        taking_part += [contenders.with_layers(model, pack, fusers, given, row) for row in LAYER_ROWS.values()]
        times: dict[str, list[float]] = {contender.name: [] for contender in taking_part}

        def in_turn(steps: list[Step], times: dict[str, list[float]] = times) -> None:
            for turn in range(WARM_UP + rounds):
                for taken, step in zip(times.values(), steps, strict=True):
                    spent = seconds(step, clock)
                    if turn >= WARM_UP:
                        taken.append(spent)

        with_open_runs(taking_part, size, in_turn)
        yield size, times
