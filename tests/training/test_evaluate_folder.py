"""A run folder: parts are computed once for the same inputs, and written whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from training.evaluate.folder import SHOWN, Part, RunFolder


def part(value: int) -> Part:
    found = Part()
    found.add([{"scene": k, "value": value} for k in range(3)], torch.rand(3, 3, 8, 8))
    return found


def test_a_part_is_computed_once_for_the_same_inputs(tmp_path: Path) -> None:
    calls: list[int] = []

    def compute() -> Part:
        calls.append(1)
        return part(len(calls))

    first = RunFolder(tmp_path).part("order main", {"steps": 20}, compute)
    assert RunFolder(tmp_path).part("order main", {"steps": 20}, compute) == first and len(calls) == 1
    other = RunFolder(tmp_path).part("order main", {"steps": 21}, compute)
    assert len(calls) == 2 and other != first, "other inputs are another result"


def test_a_part_that_failed_leaves_nothing_and_is_computed_anew(tmp_path: Path) -> None:
    def broken() -> Part:
        raise RuntimeError("the power went")

    folder = RunFolder(tmp_path)
    with pytest.raises(RuntimeError, match="power"):
        folder.part("style main", {}, broken)
    assert not list((tmp_path / "parts").iterdir())
    assert folder.part("style main", {}, lambda: part(7))[0]["value"] == 7


def test_only_the_first_pictures_are_kept(tmp_path: Path) -> None:
    found = Part()
    for _ in range(4):
        found.add([], torch.rand(5, 3, 8, 8))
    assert len(found.shown) == SHOWN
    RunFolder(tmp_path).part("many pictures", {}, lambda: found)
    assert Image.open(tmp_path / "parts" / "many_pictures.jpg").size == (8 * SHOWN, 8)


def test_results_of_all_measures_come_together_as_plain_json(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.finish("style", {"mean": 0.5, "ratio": float("inf")}, "## Style\n")
    folder.finish("order", {"mean": 1.0}, "## Order\n")
    text = (tmp_path / "results.json").read_text()
    assert "Infinity" not in text, "JSON has no infinity"
    assert json.loads(text) == {"order": {"mean": 1.0}, "style": {"mean": 0.5, "ratio": None}}
    assert (tmp_path / "tables.md").read_text() == "## Order\n\n## Style\n"
