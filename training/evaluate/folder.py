"""A run folder: results scene by scene, kept by what they follow from, so that a run that was stopped goes on.

parts/NAME.jsonl      its first line holds the inputs, each other line one scene
parts/NAME.jpg        the first results side by side
MEASURE.json, .md     what a measure makes of its parts; results.json and tables.md hold all of them
MEASURE*.png          contact sheets and plots
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from PIL import Image
from torch import Tensor

from training.config import save_config
from training.files import only_run_in, replacing

SHOWN = 8
"""Pictures that a part keeps for contact sheets."""
Row = dict[str, Any]


@dataclass
class Part:
    """What was found for every scene, and the first pictures, each (3, H, W) in [0, 1]."""

    rows: list[Row] = field(default_factory=list)
    shown: list[Tensor] = field(default_factory=list)

    def add(self, rows: list[Row], pictures: Tensor | None = None) -> None:
        """Add a batch."""
        self.rows += rows
        if pictures is not None:
            self.shown += list(pictures[: max(0, SHOWN - len(self.shown))].cpu())


class RunFolder:
    """The folder of one run; made where it is missing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "parts").mkdir(parents=True, exist_ok=True)

    def part(self, name: str, inputs: Row, compute: Callable[[], Part]) -> list[Row]:
        """The rows of a part: read where they are there for the same inputs, else computed and written whole."""
        path = self._of_part(name, "jsonl")
        key = json.dumps({"part": name, **inputs}, sort_keys=True)
        if path.exists():
            first, *lines = path.read_text(encoding="utf-8").splitlines()
            if first == key:
                return [json.loads(line) for line in lines]
        part = compute()
        if part.shown:
            write_png(path.with_suffix(".jpg"), torch.cat(part.shown, 2))
        lines = [key, *(json.dumps(row) for row in part.rows)]
        with replacing(path) as unfinished:
            unfinished.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return part.rows

    def strip(self, name: str) -> Image.Image:
        """The first pictures of a part side by side."""
        return Image.open(self._of_part(name, "jpg"))

    def finish(self, measure: str, results: Row, table: str) -> None:
        """Write a measure's results and its Markdown, and results.json and tables.md anew from all measures."""
        self._write(f"{measure}.json", json.dumps(_finite(results), indent=1) + "\n")
        self._write(f"{measure}.md", table.rstrip() + "\n")
        names = sorted(path.stem for path in self.path.glob("*.md") if path.stem != "tables")
        all_results = {name: json.loads((self.path / f"{name}.json").read_text(encoding="utf-8")) for name in names}
        self._write("results.json", json.dumps(all_results, indent=1) + "\n")
        self._write("tables.md", "\n".join((self.path / f"{name}.md").read_text(encoding="utf-8") for name in names))

    def _of_part(self, name: str, ending: str) -> Path:
        """A part's file, whose first line says which part it is; what is not ASCII gets a name of its own."""
        plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name) if name.isascii() else slug(name)
        return self.path / "parts" / f"{plain}.{ending}"

    def _write(self, name: str, text: str) -> None:
        with replacing(self.path / name) as unfinished:
            unfinished.write_text(text, encoding="utf-8")


def _finite(value: Any) -> Any:
    """JSON has no number for what is not finite: null takes its place."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def slug(name: str) -> str:
    """A name as a file's; another name gives another file, whatever its alphabet."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name)
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def write_png(path: Path, picture: Tensor) -> None:
    """Write a picture (3, H, W) in [0, 1], as PNG or, by the path's ending, as JPEG."""
    pixels = (picture.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().cpu().numpy()
    with replacing(path) as unfinished:
        Image.fromarray(pixels).save(unfinished, format="JPEG" if path.suffix == ".jpg" else "PNG", quality=92)


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


class Measured(Protocol):
    """What every measure's config has."""

    @property
    def out(self) -> Path:
        """The run folder."""
        ...

    @property
    def threads(self) -> int:
        """On a processor."""
        ...


Config = TypeVar("Config", bound=Measured)


def run_measure(config: Config, name: str, measure: Callable[[Config], object]) -> None:
    """Run a measure in its folder, where its config stays beside its results as NAME.toml, and print its tables."""
    torch.set_num_threads(config.threads)
    with only_run_in(config.out):
        save_config(config, config.out / f"{name}.toml")
        measure(config)
    print((config.out / f"{name}.md").read_text(encoding="utf-8"))
