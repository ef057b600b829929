"""Make checkpoints of Compose and Conquer: from pictures to a file that ComfyUI loads.

    prepare   pictures to a set: masks, inpainted backgrounds, depth, latents, embeddings, text states
    train     a stage on that set: local (depth), global (exemplars), then joint (both)
    export    what came out in half precision, or in the form of the authors' release

A trial in minutes, on a CPU, with what is in the repository:

    python -m training prepare --config training/recipes/prepare_scenes.toml --out sets/scenes
    python -m training train --config training/recipes/train_mini.toml

docs/training.md tells all of it, the paper's own run included; COMMAND --help lists what a command takes.
"""

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


def make_parser() -> Parser:
    """The parser of all commands."""
    parser = Parser(
        prog="python -m training", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
    return parser


def main() -> None:
    """Parse and run."""
    make_parser().run(EXPECTED)


if __name__ == "__main__":
    main()
