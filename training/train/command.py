"""`python -m training train`."""

from __future__ import annotations

import argparse
import sys

from ..config import add_arguments as add_config
from ..config import from_arguments
from .config import TrainConfig
from .loop import TrainingInterrupted, train_stage
from .plan import plan
from .processes import end_processes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    add_config(parser, TrainConfig)
    parser.add_argument(
        "--plan", action="store_true", help="print parameters, memory, steps and time, from a few steps, and train not"
    )
    parser.add_argument(
        "--plan-steps", type=int, default=3, metavar="N", help="steps to measure; 0: do not (default: 3)"
    )


def main(arguments: argparse.Namespace) -> None:
    """Run the command."""
    config = from_arguments(TrainConfig, arguments)
    if arguments.plan:
        print("\n".join(plan(config, steps=arguments.plan_steps).lines()), flush=True)
    else:
        code = 0
        try:
            train_stage(config)
        except TrainingInterrupted as interrupted:
            from accelerate import PartialState

            if PartialState().is_main_process:
                print(f"train: {interrupted}", file=sys.stderr, flush=True)
            code = 128 + interrupted.signal  # as a shell says of a command that a signal has ended
        end_processes(code)
        if code:
            sys.exit(code)
