"""Print what a guided step costs, in time and memory.

Two layers beside the plain model and beside the host's ControlNet; more layers beside two.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from .host import ROOT, enter
from .memory import peak_in_a_fresh_process
from .rows import LAYER_ROWS, MEMORY_TARGET, TWO_LAYERS

if TYPE_CHECKING:
    from .runs import Clock

CPU_SIZES, GPU_SIZES = [256], [512, 768]


def main(options: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="dev.py bench step", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="how often each is timed, in turn; 15")
    parser.add_argument("--size", type=int, nargs="+", help="pixels; 256 on a CPU, 512 and 768 on a GPU")
    parser.add_argument(
        "--shared",
        action="store_true",
        help="for a CPU that others use meanwhile: one thread, and the time that it computed instead of the time "
        "that passed",
    )
    parser.add_argument("--only", choices=["time", "memory"], help="measure one of the two")
    parser.add_argument(
        "--rows",
        choices=["all", "layers"],
        default="all",
        help="layers: the stacks of more than two layers alone, beside the two and the plain model; all",
    )
    parser.add_argument("--tiny", action="store_true", help="networks as small as they get, to try the benchmark")
    arguments = parser.parse_args(options)
    if arguments.rounds < 2:
        parser.error("--rounds must be at least 2")
    clock: Clock = time.perf_counter
    if arguments.shared:
        torch.set_num_threads(1)
        clock = time.process_time
    sizes = arguments.size or (GPU_SIZES if torch.cuda.is_available() else CPU_SIZES)
    networks = "tiny" if arguments.tiny else "full"
    pack = enter()
    from . import contenders, speed

    place = ROOT / ".cache" / "bench"
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place, ignore_cleanup_errors=True) as folder:
        fusers = Path(folder) / "fusers.safetensors"
        written = contenders.write_fusers(fusers, pack, contenders.NETWORKS[networks])
        if arguments.only != "time":
            report_memory(sizes[0], fusers, written, networks)
        if arguments.only != "memory":
            measured = speed.measure(
                pack, fusers, sizes, arguments.rounds, clock,
                networks=contenders.NETWORKS[networks], layers_alone=arguments.rows == "layers",
            )  # fmt: skip
            for size, steps in measured:
                report_time(size, steps, arguments.shared)


def report_memory(size: int, fusers: Path, written: int, networks: str) -> None:
    """Measure and print the peaks of the plain model, of two layers and of each row of more."""

    def peak(contender: str) -> int:
        return peak_in_a_fresh_process(contender, size, fusers, networks)

    print(f"peak resident memory at {size} x {size}, each in a fresh process")
    plain, two = peak("plain"), peak(TWO_LAYERS)
    share = (two - plain) / written
    print(f"  {'plain':20}{plain / 1e9:6.2f} GB")
    print(f"  {TWO_LAYERS:20}{two / 1e9:6.2f} GB, more by {share:.2f} of the fusers' {written / 1e9:.2f} GB", end="")
    print("; target: at most 1.15", flush=True)
    for name in LAYER_ROWS:
        own = peak(name)
        print(f"  {name:20}{own / 1e9:6.2f} GB, {own / two:.3f} of two layers", end="")
        print(f"; target: at most {MEMORY_TARGET:.2f}", flush=True)


def report_time(size: int, steps: dict[str, list[float]], shared: bool) -> None:
    """Print one table: medians over the rounds, more layers beside two, two beside a ControlNet where it took part."""
    medians = {name: statistics.median(times) for name, times in steps.items()}
    rounds = len(steps["plain"])
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    if shared:
        device = "CPU, one thread, time computed"
    print(f"one step at {size} x {size}, cond and uncond in one batch; median of {rounds} rounds in turn; {device}")
    for name, median in medians.items():
        low, _, high = statistics.quantiles(steps[name], n=4)
        beside = beside_two_layers(steps, name) if name in LAYER_ROWS else ""
        share = median / medians["plain"]
        print(f"  {name:20}{median:8.3f} s  {share:6.3f} of plain  (half of them {low:.3f} to {high:.3f}){beside}")
    if "ControlNet" in steps:
        report_beside_control_net(steps, medians)
    print(end="", flush=True)


def beside_two_layers(steps: dict[str, list[float]], name: str) -> str:
    """Say what share of the two layers' step a row's takes: by the medians, and round by round."""
    share = statistics.median(steps[name]) / statistics.median(steps[TWO_LAYERS])
    each = [own / two for own, two in zip(steps[name], steps[TWO_LAYERS], strict=True)]
    low, _, high = statistics.quantiles(each, n=4)
    target = LAYER_ROWS[name].target
    return f", {share:.3f} of two layers (round by round {low:.3f} to {high:.3f}); target: at most {target:.2f}"


def report_beside_control_net(steps: dict[str, list[float]], medians: dict[str, float]) -> None:
    """Print what two layers add to the plain model's step, as a share of what a ControlNet adds; soft guidance's."""
    plain, control, alone, ours = (medians[name] for name in ("plain", "ControlNet", "local fuser alone", TWO_LAYERS))
    each = [
        (ours - plain) / (control - plain)
        for plain, control, ours in zip(steps["plain"], steps["ControlNet"], steps[TWO_LAYERS], strict=True)
    ]
    low, _, high = statistics.quantiles(each, n=4)
    print(f"  (ours - plain) / (ControlNet - plain): {(ours - plain) / (control - plain):.3f}", end="")
    print(f" by the medians; round by round half of them {low:.3f} to {high:.3f}; target: at most 1.00")
    print(f"  soft guidance: {(ours - alone) / ours:+.1%} of a step")
