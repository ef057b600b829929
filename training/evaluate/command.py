"""The commands of `python -m training evaluate`."""

from __future__ import annotations

import argparse

from training.config import Parser

from . import depth, generate, judge, layered, order, parts, style, tables, targets


def add_commands(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add one command a measure."""
    for name, about, module in (
        ("order", "which object stands in front", order),
        ("style", "whose look each layer takes", style),
        ("depth", "the depth of reconstructions", depth),
        ("layers", "the order, material and depth of any number of layers", layered),
        ("tables", "the paper's metrics on folders of pictures", tables),
        ("generate", "sample a prepared set with a full model, for `tables`", generate),
        ("targets", "measured figures beside their targets", targets),
        ("judge", "train the network that tells what a pixel shows", judge),
        ("parts", "the Mini's smaller networks", parts),
    ):
        command = commands.add_parser(name, help=about)
        module.add_arguments(command)
        command.set_defaults(run=module.main)
