"""The commands of `python -m training`."""

from __future__ import annotations

import argparse

from cnc_core import CheckpointError
from cnc_core.perception import PerceptionError

from .config import ConfigError, Parser
from .evaluate import command as evaluate
from .files import FolderInUse
from .mini import command
from .prepare import EncoderError, SourceError, TooManyBroken
from .prepare import command as prepare
from .prepared import PreparedError
from .train import TrainingStopped
from .train import command as train
from .weights import command as weights

EXPECTED = (
    CheckpointError, ConfigError, EncoderError, FolderInUse, PerceptionError, PreparedError, SourceError, TooManyBroken,
    TrainingStopped, OSError,
)  # fmt: skip
"""Errors whose text says all that a user needs."""


def main() -> None:
    """Parse and run."""
    parser: argparse.ArgumentParser = Parser(prog="python -m training", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    prepare.add_commands(commands)
    mini = commands.add_parser("mini", help="make CnC-Mini")
    command.add_arguments(mini)
    mini.set_defaults(run=command.main)
    measures = commands.add_parser("evaluate", help="measure a model").add_subparsers(dest="what", required=True)
    evaluate.add_commands(measures)
    weights.add_commands(commands)
    training = commands.add_parser("train", help="train a stage: local, global or joint")
    train.add_arguments(training)
    training.set_defaults(run=train.main)
    arguments = parser.parse_args()
    try:
        arguments.run(arguments)
    except EXPECTED as error:
        raise SystemExit(f"{parser.prog} {arguments.command}: {error}") from error


if __name__ == "__main__":
    main()
