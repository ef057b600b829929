"""`python -m training convert | merge | export`."""

from __future__ import annotations

import argparse
from pathlib import Path

from training.config import Parser

from .export import DTYPES, export_fusers, merge_fusers
from .initial import convert


def add_commands(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add the three commands to those of `python -m training`."""
    converting = commands.add_parser(
        "convert", help="make an initial local fuser of Stable Diffusion 1.5 or Uni-ControlNet weights"
    )
    converting.add_argument("source", type=Path, help="a single-file checkpoint (.safetensors or .ckpt)")
    converting.add_argument("target", type=Path, help="the .safetensors to write")
    converting.add_argument("--seed", type=int, default=0, help="of what has no source (default: 0)")
    converting.set_defaults(run=_convert)
    merging = commands.add_parser("merge", help="put a local and a global fuser into one file")
    merging.add_argument("local", type=Path, help="a file with a local fuser")
    merging.add_argument("global_", type=Path, metavar="global", help="a file with a global fuser")
    merging.add_argument("target", type=Path, help="the .safetensors to write")
    merging.set_defaults(run=_merge)
    exporting = commands.add_parser("export", help="write fusers as .safetensors or .ckpt, in another precision")
    exporting.add_argument("source", type=Path, help="a file of fusers: a training checkpoint, or a released .ckpt")
    exporting.add_argument("target", type=Path, help="what to write: .safetensors, or .ckpt with the release's keys")
    exporting.add_argument("--precision", choices=list(DTYPES), help="of what is written (default: as it is)")
    exporting.add_argument(
        "--base", type=Path, help="a base model that a .ckpt shall hold too, as the released ones do"
    )
    exporting.set_defaults(run=_export)


def _convert(arguments: argparse.Namespace) -> None:
    convert(arguments.source, arguments.target, seed=arguments.seed)


def _merge(arguments: argparse.Namespace) -> None:
    merge_fusers(arguments.local, arguments.global_, arguments.target)


def _export(arguments: argparse.Namespace) -> None:
    export_fusers(arguments.source, arguments.target, precision=arguments.precision, base=arguments.base)
