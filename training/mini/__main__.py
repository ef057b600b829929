"""`python -m training.mini`: the same as `python -m training mini`, with fewer libraries at hand."""

from __future__ import annotations

import argparse

from .command import add_arguments, main

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m training.mini", description=__doc__)
    add_arguments(parser)
    main(parser.parse_args())
