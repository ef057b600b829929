"""`python -m training.mini`: as `python -m training mini`, without what the other commands import."""

from __future__ import annotations

from cnc_core import CheckpointError
from training.config import ConfigError, Parser
from training.files import FolderInUse

from .command import add_arguments, main

if __name__ == "__main__":
    parser = Parser(prog="python -m training.mini", description=__doc__)
    add_arguments(parser)
    parser.set_defaults(run=main)
    parser.run((CheckpointError, ConfigError, FolderInUse, OSError))
