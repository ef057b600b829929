"""CnC-Mini's card: its tables follow from what is kept of every scene."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from devtools.documentation.results import packed, unpacked
from training.evaluate import layered
from training.evaluate.folder import Part, RunFolder
from training.evaluate.layered import TRUE
from training.evaluate.order import WAYS, score
from training.evaluate.statistics import Estimate, difference, estimate, ratio
from training.evaluate.style import ANSWERS, REGIONS, column, leaks

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "training" / "mini" / "results"
CARD = (ROOT / "training" / "mini" / "README.md").read_text(encoding="utf-8")
FLAT = " ".join(CARD.split())
Parts = dict[str, list[dict[str, Any]]]


def order(parts: Parts, arm: str, way: str, exemplars: str = "off") -> list[float]:
    """Whether each scene is a success, the caption being full."""
    return score(parts[f"order {arm}: {way}, caption full, exemplars {exemplars}"], way)["both"]  # type: ignore[arg-type]


def short(value: Estimate) -> str:
    """Two digits, as the card's ratios stand."""
    return f"{value.mean:.2f} [{value.low:.2f}, {value.high:.2f}]".replace("0.", ".")


def leaked(parts: Parts, who: str) -> dict[str, Any]:
    """Every leakage of an arm, or of the true renders, less its floor."""
    true = who == ANSWERS
    rows = parts[f"style {who}" if true else f"style {who} conflicting"]
    floors = {kind: parts[f"style {who}{',' if true else ''} unrelated {kind}"] for kind in ("fg", "bg")}
    names = dict.fromkeys(("foreground far from its outline", "object's material in the foreground"), 0.0)

    def whole(kept: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{**names, **row} for row in kept]  # of older runs not all was kept

    return leaks(whole(rows), {kind: whole(found) for kind, found in floors.items()})


def test_order_of_the_shipped_model() -> None:
    parts = unpacked(RESULTS / "order.json")
    for exemplars in ("off", "on"):
        means = [100 * estimate(order(parts, "main", way, exemplars)).mean for way in WAYS[:3]]
        assert "{:.1f}, {:.1f} and {:.1f}".format(*means) in FLAT


def test_order_and_material_of_three_layers() -> None:
    parts = unpacked(RESULTS / "layers_3.json")
    figures = ("all pairs", "pair 1, 2", "pair 2, 3", "material, mean", "leakage")
    for row, name in (("as asked", "main: layers, as asked"), ("reversed", "main: layers, reversed"),
                      ("looks", "main: layers, looks"), ("true renders, decoded", TRUE)):  # fmt: skip
        found = layered.scores(parts[f"layers {name}"])
        assert f"| {row} | {' | '.join(estimate(found[figure]).share() for figure in figures)} |" in CARD
    for name in ("as asked", "looks"):
        found = layered.scores(parts[f"layers main: layers, {name}"])
        shown = [100 * estimate(found[f"material, layer {k}"]).mean for k in (1, 2, 3)]
        assert "{:.1f}, {:.1f} and {:.1f}".format(*shown) in FLAT
    true, asked = (layered.scores(parts[f"layers {name}"]) for name in (TRUE, "main: layers, as asked"))
    for figure in (f"depth, layer {k}" for k in (1, 2, 3)):
        assert abs(estimate(asked[figure]).mean - estimate(true[figure]).mean) < 0.003


@pytest.mark.parametrize("arm", ["together", "ablation", "single_z", "single_max", "paper_order"])
def test_order_of_the_first_runs_models(arm: str) -> None:
    parts = unpacked(RESULTS / "first" / "order.json")
    ways = WAYS[:2] if arm.startswith("single") else WAYS[:3]
    found = [estimate(order(parts, arm, way)).share() for way in ways]
    assert f"| `{arm}` | {' | '.join(found)} |" in CARD
    if arm != "together":
        less = [difference(order(parts, "together", w), order(parts, arm, w)).share() for w in WAYS[:2]]
        assert f" | {' | '.join(less)} |\n" in CARD


@pytest.mark.parametrize(
    "file, measured",
    [
        ("frozen_order", {"local": WAYS[:3], "local_ablation": WAYS[:3], "local_max": WAYS[:2]}),
        ("frozen_order_again", {"local": WAYS[:3], "local_ablation": WAYS[:2]}),
    ],
)
def test_order_on_one_frozen_base(file: str, measured: dict[str, tuple[str, ...]]) -> None:
    parts = unpacked(RESULTS / f"{file}.json")
    for arm, ways in measured.items():
        found = [estimate(order(parts, arm, way)).share() for way in ways]
        assert f"| `{arm}` | {' | '.join(found)} |" in CARD
        if arm != "local":
            less = [difference(order(parts, "local", w), order(parts, arm, w)).share() for w in ways]
            assert f"| `local` less `{arm}` | {' | '.join(less)} |" in CARD


def test_the_second_local_against_the_larger_map() -> None:
    again, first = (unpacked(RESULTS / f"{file}.json") for file in ("frozen_order_again", "frozen_order"))
    less = [difference(order(again, "local", way), order(first, "local_max", way)).share() for way in WAYS[:2]]
    assert " and ".join(less) in FLAT


def test_depth_on_one_frozen_base() -> None:
    parts = unpacked(RESULTS / "frozen_depth.json")
    for arm in ("local", "local_ablation", "local_max"):
        cells = []
        for layer in ("foreground", "background"):
            own, other = (column(parts[f"depth {who}"], layer) for who in ("local", arm))
            cells += [estimate(other).number(), difference(own, other).number() if arm != "local" else ""]
        line = f"| `{arm}` | {' | '.join(cells)} |".replace("0.", ".").replace("|  |", "| |")
        assert line in CARD


def test_leakage_on_one_frozen_base() -> None:
    parts = unpacked(RESULTS / "frozen_style.json")
    with_mask, without = leaked(parts, "global"), leaked(parts, "global_no_mask")
    names = ("background in the foreground", "object's material in the foreground", "background deep in the foreground",
             "foreground in the background", "foreground far from its outline")  # fmt: skip
    for name in names:
        assert short(ratio(with_mask[name], without[name])) in FLAT, name
    for arm in ("global", "global_no_mask"):
        rows = parts[f"style {arm} conflicting"]
        means = [100 * estimate(column(rows, f"{region}, right")).mean for region in REGIONS]
        assert "{:.1f}, {:.1f}, {:.1f} and {:.1f}".format(*means) in FLAT


def test_leakage_of_the_second_runs_models() -> None:
    parts = unpacked(RESULTS / "style.json")
    main, without = leaked(parts, "main"), leaked(parts, "no_mask")
    names = ("background in the foreground", "background deep in the foreground", "foreground in the background")
    cells = [short(ratio(main[name], without[name])) for name in names]
    assert f"| floor subtracted | {' | '.join(cells)} |" in CARD
    true = leaked(parts, ANSWERS)
    cells = [short(ratio(true[name], without[name])) for name in names[:2]]
    assert f"| true renders of what is asked for, over `no_mask`, floor subtracted | {' | '.join(cells)} |" in CARD


def test_regions_by_the_longer_judge() -> None:
    rows = unpacked(RESULTS / "longer_judge.json")["style main conflicting"]
    means = [100 * estimate(column(rows, f"{region}, right")).mean for region in REGIONS]
    assert "{:.1f}, {:.1f}, {:.1f} and {:.1f}".format(*means) in FLAT


def test_depth() -> None:
    rows = unpacked(RESULTS / "depth.json")["depth main"]
    for layer in ("foreground", "background"):
        assert estimate(column(rows, layer)).number().replace("0.", ".") in FLAT


def test_a_part_is_packed_and_read_again(tmp_path: Path) -> None:
    rows = [{"scene": k, "colour": k > 1, "foreground": k / 7, "other": 0.5} for k in range(3)]
    RunFolder(tmp_path).part("order x: way", {"sampling": {"steps": 20}}, lambda: Part(rows))
    part = packed(next((tmp_path / "parts").glob("*.jsonl")))
    assert part["sampling"] == {"steps": 20} and "other" not in part
    file = tmp_path / "packed.json"
    file.write_text(json.dumps({"scenes": part.pop("scenes"), "parts": [part]}))
    again = unpacked(file)["order x: way"]
    assert [row["scene"] for row in again] == [0, 1, 2] and [row["colour"] for row in again] == [False, False, True]
    assert [row["foreground"] for row in again] == [0.0, 0.1429, 0.2857]
