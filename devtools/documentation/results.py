"""Pack what run folders of `evaluate` hold, scene by scene, into one small file that can be kept.

    python -m devtools.documentation.results runs/order runs/style --out training/mini/results/frozen.json

Each part keeps its name, arm and sampling, and of every scene what its table is made of: yes or no as a string of 1 and
0, shares and errors with four digits. `unpacked` reads it again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from training.evaluate.style import LEAKS
from training.files import replacing
from training.mini.layered import MOST

from ..environment import say

NUMBERS = {
    *LEAKS,
    "foreground",
    "background",
    *(f"{kind}, layer {k}" for kind in ("leakage", "depth") for k in range(1, MOST + 1)),
}
"""Columns of numbers that are kept: leakages, and the depth error of each layer."""


def packed(part: Path) -> dict[str, Any]:
    """A part's file in little space."""
    first, *lines = part.read_text(encoding="utf-8").splitlines()
    told, rows = json.loads(first), [json.loads(line) for line in lines]
    kept: dict[str, Any] = {"part": told["part"], "sampling": told.get("sampling")}
    for name, value in rows[0].items():
        column = [row[name] for row in rows]
        if isinstance(value, bool):
            kept[name] = "".join("01"[seen] for seen in column)
        elif name in NUMBERS:
            kept[name] = [round(number, 4) for number in column]
    return {**kept, "scenes": [row["scene"] for row in rows]}


def unpacked(file: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of every part of a packed file, by the part's name."""
    held = json.loads(file.read_text(encoding="utf-8"))
    found = {}
    for part in held["parts"]:
        columns = {
            name: [seen == "1" for seen in kept] if isinstance(kept, str) else kept
            for name, kept in part.items()
            if name not in ("part", "sampling")
        }
        columns["scene"] = held["scenes"]
        found[part["part"]] = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return found


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(prog="python -m devtools.documentation.results")
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    parts = [packed(part) for run in options.runs for part in sorted((run / "parts").glob("*.jsonl"))]
    scenes = {tuple(part.pop("scenes")) for part in parts}
    if len(scenes) != 1:
        parser.error("the runs are not of the same scenes: pack them into a file each")
    lines = ",\n".join(json.dumps(part, separators=(",", ":")) for part in parts)
    head = json.dumps({"scenes": list(scenes.pop())}, separators=(",", ":"))
    with replacing(options.out) as unfinished:
        unfinished.write_text(f'{head[:-1]},"parts":[\n{lines}\n]}}\n', encoding="utf-8")
    say(f"{options.out}: {len(parts)} parts, {options.out.stat().st_size // 1024} KB")


if __name__ == "__main__":
    main()
