"""`python -m training.evaluate`: as `python -m training evaluate`, without what the other commands import."""

from __future__ import annotations

from cnc_core import CheckpointError
from cnc_core.perception import PerceptionError
from training.config import ConfigError, Parser
from training.files import FolderInUse
from training.prepare.encoders import EncoderError
from training.prepared import PreparedError

from .command import add_commands

if __name__ == "__main__":
    parser = Parser(prog="python -m training.evaluate", description=__doc__)
    add_commands(parser.add_subparsers(dest="command", required=True))
    parser.run((CheckpointError, ConfigError, EncoderError, FolderInUse, PerceptionError, PreparedError, OSError))
