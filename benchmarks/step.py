"""Print what a guided step costs beside the plain model's and beside the host's ControlNet, in time and memory."""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from .host import ROOT, enter
from .memory import peak_in_a_fresh_process

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
    arguments = parser.parse_args(options)
    if arguments.rounds < 2:
        parser.error("--rounds must be at least 2")
    clock: Clock = time.perf_counter
    if arguments.shared:
        torch.set_num_threads(1)
        clock = time.process_time
    sizes = arguments.size or (GPU_SIZES if torch.cuda.is_available() else CPU_SIZES)
    fusers = ROOT / ".cache" / "bench" / "fusers.safetensors"
    fusers.parent.mkdir(parents=True, exist_ok=True)
    pack = enter()
    from . import contenders, speed

    try:
        written = contenders.write_fusers(fusers, pack)
        if arguments.only != "time":
            report_memory(sizes[0], fusers, written)
        if arguments.only != "memory":
            for size, steps in speed.measure(pack, fusers, sizes, arguments.rounds, clock):
                report_time(size, steps, arguments.shared)
    finally:
        fusers.unlink(missing_ok=True)


def report_memory(size: int, fusers: Path, written: int) -> None:
    plain, ours = (peak_in_a_fresh_process(what, size, fusers) for what in ("plain", "ours"))
    share = (ours - plain) / written
    print(f"peak resident memory at {size} x {size}, each in a fresh process")
    print(f"  plain               {plain / 1e9:6.2f} GB")
    print(f"  Compose and Conquer {ours / 1e9:6.2f} GB, more by {share:.2f} of the fusers' {written / 1e9:.2f} GB")
    print("  target: at most 1.15", flush=True)


def report_time(size: int, steps: dict[str, list[float]], shared: bool) -> None:
    """Print one table: medians over the rounds; the figure; soft guidance's share of a step."""
    medians = {name: statistics.median(times) for name, times in steps.items()}
    plain, control, alone, ours = (
        medians[name] for name in ("plain", "ControlNet", "local fuser alone", "Compose and Conquer")
    )
    rounds = len(steps["plain"])
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    if shared:
        device = "CPU, one thread, time computed"
    print(f"one step at {size} x {size}, cond and uncond in one batch; median of {rounds} rounds in turn; {device}")
    for name, median in medians.items():
        low, _, high = statistics.quantiles(steps[name], n=4)
        print(f"  {name:20}{median:8.3f} s  {median / plain:6.3f} of plain  (half of them {low:.3f} to {high:.3f})")
    each = [
        (ours - plain) / (control - plain)
        for plain, control, ours in zip(steps["plain"], steps["ControlNet"], steps["Compose and Conquer"], strict=True)
    ]
    low, _, high = statistics.quantiles(each, n=4)
    print(f"  (ours - plain) / (ControlNet - plain): {(ours - plain) / (control - plain):.3f}", end="")
    print(f" by the medians; round by round half of them {low:.3f} to {high:.3f}; target: at most 1.00")
    print(f"  soft guidance: {(ours - alone) / ours:+.1%} of a step", flush=True)
