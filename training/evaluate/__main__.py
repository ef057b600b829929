"""`python -m training.evaluate`: as `python -m training evaluate`, without what the other commands import."""

from __future__ import annotations

import argparse

from cnc_core import CheckpointError
from training.config import ConfigError, Parser
from training.files import FolderInUse
from training.prepared import PreparedError

from .command import add_commands

EXPECTED = (CheckpointError, ConfigError, FolderInUse, PreparedError, OSError)


def main() -> None:
    """Parse and run."""
    parser: argparse.ArgumentParser = Parser(prog="python -m training.evaluate", description=__doc__)
    add_commands(parser.add_subparsers(dest="what", required=True))
    arguments = parser.parse_args()
    try:
        arguments.run(arguments)
    except EXPECTED as error:
        raise SystemExit(f"{parser.prog} {arguments.what}: {error}") from error


if __name__ == "__main__":
    main()
