"""List the models that there are to fetch, and fetch one. Nothing else in this pack downloads anything.

python cnc.py list
python cnc.py fetch NAME [NAME ...] [--into COMFYUI/models] [--mirror URL]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..command_lines import PACK
from .fetch import FetchError, Progress, fetch
from .weights import TABLE, UnknownWeights, Weights, named


def main(arguments: list[str] | None = None) -> int:
    """Run the command of the command line; return its exit code."""
    options = _parse(arguments)
    if options.command == "list":
        print(_listed())
        return 0
    try:
        chosen = [named(name) for name in options.names]
        models = options.into or _models()
        for weights in chosen:
            _fetch(weights, models, options.mirror)
    except (FetchError, UnknownWeights) as error:
        print(f"\n{error}" if sys.stderr.isatty() else error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on or begins anew", file=sys.stderr)
        return 130
    return 0


def _fetch(weights: Weights, models: Path, mirror: str | None) -> None:
    print(f"{weights.name}: {weights.source}\n  licence: {weights.licence}", flush=True)
    path = fetch(weights, models, mirror=mirror, progress=_progress())
    checked = "its SHA-256 is right" if weights.sha256 else "whole by its format; its SHA-256 is not known here"
    print(f"  {path} ({checked})", flush=True)


def _progress() -> Progress | None:
    """A line that counts, where someone watches."""
    if not sys.stderr.isatty():
        return None

    def show(have: int, total: int | None) -> None:
        of = f" of {total / 1e6:.1f}" if total else ""
        print(f"\r  {have / 1e6:.1f}{of} MB", end="\n" if have == total else "", file=sys.stderr, flush=True)

    return show


def _models() -> Path:
    """The `models` of the ComfyUI that this pack is installed in."""
    comfy = PACK.parent.parent
    if PACK.parent.name == "custom_nodes" and (comfy / "models").is_dir():
        return comfy / "models"
    raise FetchError(f"{PACK} is not in a ComfyUI's custom_nodes: say where the models go with --into COMFYUI/models")


def _listed() -> str:
    """The table as text."""
    return "\n".join(
        f"{weights.name} ({weights.kind})\n"
        f"    models/{weights.folder}/{weights.file}\n"
        f"    {weights.source}\n"
        f"    licence: {weights.licence}\n"
        f"    size: {f'{weights.size:,}' if weights.size else f'at least {weights.least:,}'} bytes; "
        f"SHA-256: {weights.sha256 or 'not known'}"
        for weights in TABLE
    )


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python cnc.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="what there is to fetch")
    fetching = commands.add_parser("fetch", help="download models, check them and put them where the pack looks")
    fetching.add_argument("names", nargs="+", metavar="NAME", help="as `list` shows them")
    fetching.add_argument("--into", type=Path, metavar="MODELS", help="the `models` folder of a ComfyUI")
    fetching.add_argument("--mirror", metavar="URL", help="an address that stands in for the source's own")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
