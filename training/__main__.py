"""The commands of `python -m training`."""

from __future__ import annotations

import argparse

from .evaluate import order, parts
from .mini import command


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    mini = commands.add_parser("mini", help="make CnC-Mini")
    command.add_arguments(mini)
    mini.set_defaults(run=command.main)
    evaluate = commands.add_parser("evaluate", help="measure a model").add_subparsers(dest="what", required=True)
    measured = evaluate.add_parser("order", help="which object stands in front")
    order.add_arguments(measured)
    measured.set_defaults(run=order.main)
    smaller = evaluate.add_parser("parts", help="the Mini's smaller networks")
    parts.add_arguments(smaller)
    smaller.set_defaults(run=parts.main)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
