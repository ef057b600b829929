"""`python -m training prepare`, `check` and `show`."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from pathlib import Path

from training.config import Parser, add_arguments, from_arguments

from ..files import only_run_in
from ..prepared import PreparedError, damaged_shards, drop_shards, has_checksum, read_manifest, unnamed_files
from .config import PrepareConfig
from .run import prepare
from .sheet import draw_sheet


def add_commands(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add the three commands."""
    make = commands.add_parser("prepare", help="make a prepared set from pictures")
    add_arguments(make, PrepareConfig)
    make.set_defaults(run=_prepare)
    check = commands.add_parser("check", help="validate a prepared set: checksums, shapes, values")
    check.add_argument("set", type=Path)
    check.add_argument("--repair", action="store_true", help="take damaged shards out; `prepare` then makes them again")
    check.set_defaults(run=_check)
    show = commands.add_parser("show", help="draw a contact sheet of a prepared set's triplets")
    show.add_argument("set", type=Path)
    show.add_argument("--out", type=Path, default=Path("sheet.png"))
    show.add_argument("--count", type=int, default=8, help="how many samples (default: 8)")
    show.add_argument("--seed", type=int, default=0, help="which samples")
    show.set_defaults(run=_show)


def _prepare(arguments: argparse.Namespace) -> None:
    prepare(from_arguments(PrepareConfig, arguments), say=lambda text: print(text, flush=True))


def _check(arguments: argparse.Namespace) -> None:
    folder = arguments.set
    with only_run_in(folder) if arguments.repair else nullcontext():
        manifest, wrong = read_manifest(folder), damaged_shards(folder)
        if wrong and arguments.repair:
            drop_shards(folder, wrong)
    for skip in (skip for shard in manifest.shards for skip in shard.skipped):
        print(f"left out: {skip.id}: {skip.reason}{f' ({skip.detail})' if skip.detail else ''}")
    print(f"{len(manifest.shards)} of {manifest.shard_count} shards, {manifest.samples} samples, {manifest.content}")
    if wrong:
        after = "taken out, run `prepare` again" if arguments.repair else "see `check --repair`"
        raise PreparedError("\n".join(wrong.values()) + f"\n{len(wrong)} damaged shards; {after}")
    if lost := unnamed_files(folder):
        raise PreparedError(
            f"{folder} has {len(lost)} files of shards that its manifest does not name, the first is {lost[0]}: copy "
            f"the set again, or prepare it anew in another folder"
        )
    if not manifest.complete:
        raise PreparedError(f"{folder} is unfinished: run its `prepare` command again")
    if not has_checksum(folder):
        print("its manifest has no checksum, so what it says of models and options cannot be checked; its `prepare`")
        print("command, run again, adds one")
    print("complete and undamaged")


def _show(arguments: argparse.Namespace) -> None:
    drawn = draw_sheet(arguments.set, arguments.out, count=arguments.count, seed=arguments.seed)
    print(f"{len(drawn)} samples drawn to {arguments.out}")
