"""Run one of the benchmarks by name; `step` where none is given.

python3 dev.py bench [step | layers | perception | training] [its own options]
"""

from __future__ import annotations

import importlib
import sys

BENCHMARKS = ("step", "layers", "perception", "training")
"""Modules of this package, each with a `main` that takes the rest of the command line."""


def main() -> None:
    name, *rest = sys.argv[1:] or ["step"]
    if name.startswith("-"):
        name, rest = "step", sys.argv[1:]
    if name not in BENCHMARKS:
        raise SystemExit(f"there is no benchmark {name!r}; there is {', '.join(BENCHMARKS)}")
    importlib.import_module(f".{name}", __package__).main(rest)


if __name__ == "__main__":
    main()
