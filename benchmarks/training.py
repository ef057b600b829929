"""What preparing a set saves: training steps from it and steps that encode each time, the loader, and preparing itself.

    python3 dev.py bench training                        # at full size, with made-up weights, on this GPU or CPU
    python3 dev.py bench training --only local --compile # the local stage as it is and compiled

Rates are samples a second. Kinds of step are timed in turn in one process, on the same networks, at equal size. On a
GPU the local stage also says which batch fits a card of 24 GB.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from cnc_core import FuserConfig
from devtools.launch import complete_torchvision
from training.prepare import PrepareConfig, prepare
from training.prepared import PreparedSet
from training.train import TrainConfig
from training.train.config import Stage
from training.train.loader import Loader
from training.train.order import Drawn, Order

from .training_inputs import CAPTIONS, TOKENS, write_set
from .training_steps import Inputs, measure, measure_compiled, measure_forward, measure_memory

STAGES: tuple[Stage, ...] = ("local", "global", "joint")
PARTS = ("loader", "prepare", *STAGES)
USUAL = ("loader", "prepare", "local", "global")
TINY = FuserConfig(
    model_channels=32, channel_mult=(1, 1, 1, 2), num_res_blocks=1, num_heads=2, inject_channels=(8,) * 4
)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="dev.py bench training", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=PARTS, nargs="+", default=list(USUAL), help="measure these, in this order")
    parser.add_argument("--size", type=int, default=512, help="pixels (default: 512)")
    parser.add_argument("--batch", type=int, nargs="+", help="samples a step (default: 4 16 on a GPU, 1 on a CPU)")
    parser.add_argument("--rounds", type=int, default=5, help="how often each kind of step is timed (default: 5)")
    parser.add_argument("--compile", action="store_true", help="compile the stage's networks too")
    parser.add_argument(
        "--tiny", action="store_true", help="networks as small as they get, to try the benchmark itself"
    )
    options = parser.parse_args(arguments)
    complete_torchvision()  # which transformers imports
    batches = tuple(options.batch or ((4, 16) if torch.cuda.is_available() else (1,)))
    with tempfile.TemporaryDirectory() as folder:
        inputs = Inputs(Path(folder) / "inputs", options.size, TINY if options.tiny else FuserConfig())
        if set(options.only) & set(STAGES):
            inputs.write(samples=64)
        for name in options.only:
            if name == "loader":
                measure_loader(Path(folder))
            elif name == "prepare":
                measure_preparing(Path(folder))
            else:
                measure_stage(inputs, name, batches, options.rounds, options.compile)


def measure_stage(inputs: Inputs, stage: Stage, batches: tuple[int, ...], rounds: int, compiled: bool) -> None:
    """Print all that is to be said of a stage, and free what it took."""
    trainer = measure(inputs, stage, batches, rounds)
    if compiled:
        measure_compiled(trainer, batches[-1], rounds)
    elif stage == "local":
        measure_forward(trainer, batches[-1], rounds)
        if trainer.device.type == "cuda":
            measure_memory(trainer)
    trainer.accelerator.free_memory()
    del trainer
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def measure_loader(folder: Path, samples: int = 256, batch: int = 32) -> None:
    """Print how fast one core reads a set at 64 x 64 latents, whose files are in the system's cache."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    config = FuserConfig()
    write_set(folder / "loaded", samples, 64, config)
    data = PreparedSet(folder / "loaded", verify=False)
    readers: dict[str, Callable[[Sequence[Drawn]], object]] = {}
    for stage in STAGES:
        told = TrainConfig(stage, (folder,), folder, folder, (folder,) if stage == "joint" else ())
        width = 0 if stage == "local" else 24 * config.context_dim
        empty = torch.zeros(TOKENS, config.context_dim)
        loader = Loader(data, told, empty=empty, encode=None, dropout_width=width)
        readers[f"{stage}, read"] = partial(_read, loader)
        readers[f"{stage}, read and drawn"] = loader.training
    order = Order(samples, 0, 0)
    times: dict[str, list[float]] = {kind: [] for kind in readers}
    for first in range(0, 9 * samples, batch):
        for kind, read in readers.items():
            began = time.process_time()
            read(order.turns(first, batch))
            if first >= samples:  # the first epoch maps every page
                times[kind].append(time.process_time() - began)
    print(f"the loader at 64 x 64 latents and {CAPTIONS} captions, batches of {batch}, one core; target 2000 a second")
    for kind, each in times.items():
        print(f"  {kind:24}{batch / statistics.median(each):8.0f} samples a second (median of {len(each)} batches)")
    torch.set_num_threads(threads)


def _read(loader: Loader, turns: Sequence[Drawn]) -> None:
    loader.read([turn.sample for turn in turns])


def measure_preparing(folder: Path, scenes: int = 96, rounds: int = 3) -> None:
    """Print what batches save where a set is prepared, by the Mini's networks on procedural scenes."""
    seconds: dict[int, list[float]] = {1: [], 8: []}
    for number in range(rounds):
        for size, times in seconds.items():
            config = PrepareConfig(
                folder / f"by_{size}_{number}", "scenes", scenes=scenes, size=128, mask="mini", inpainter="given",
                depth="mini", batch_size=size, pictures=False,
            )  # fmt: skip
            began = time.perf_counter()
            prepare(config, say=lambda line: None)
            times.append(time.perf_counter() - began)
    rates = {size: scenes / statistics.median(times) for size, times in seconds.items()}
    print(
        f"prepare, {scenes} scenes at 128 pixels, medians of {rounds} in turn: one by one {rates[1]:.1f} a second, by "
        f"eights {rates[8]:.1f}, {rates[8] / rates[1]:.2f} times as many",
        flush=True,
    )
