"""The node of the lambda curve: what its points mean, and what Soft Guidance makes of it."""

from __future__ import annotations

from typing import Any

import pytest

from .golden_model import GoldenModel, check_equal


def curve(one: GoldenModel, points: str = "0, 1; 1, 1", **inputs: Any) -> Any:
    node = one.host.pack.part("nodes.curve").LambdaCurve
    return node.execute(**{"points": points, "input": 1.0, "middle": 1.0, "output": 1.0, **inputs}).args[0]


def test_points_are_read_as_they_are_written(one: GoldenModel) -> None:
    assert curve(one, " 0 , 1;0.5,2\n\n1,0; ").curve == ((0, 1), (0.5, 2), (1, 0))
    assert curve(one, "").curve == () and curve(one, "", middle=0.5).block_factors == (1, 0.5, 1)


@pytest.mark.parametrize(
    ("points", "words"),
    [
        ("0, 1; half, 2", "'half, 2' in points is none"),
        ("0, 1, 2", "'0, 1, 2' in points is none"),
        ("0.5, 1; 0.2, 1", "those of a curve rise"),
        ("0, nan", "finite numbers"),
        ("0, 1; 1.5, 1", "must be in"),
        ("0,1;" * 257, "257 of them; give at most 256"),
    ],
)
def test_what_is_no_curve_is_told(one: GoldenModel, points: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        curve(one, points)


def test_a_curve_of_the_hosts_editor_takes_the_place_of_the_points(one: GoldenModel) -> None:
    """What ComfyUI's editor gives has `interp`."""

    class Drawn:
        def interp(self, x: float) -> float:
            return 1 - x

    found = curve(one, "0, 9", curve=Drawn())
    assert [found.factor(at) for at in (0.0, 0.3, 1.0)] == pytest.approx([1.0, 0.7, 0.0])


def test_soft_guidance_follows_it(one: GoldenModel) -> None:
    """With a curve of 1 as without one; in halves, as two schedules."""
    plain = one.sample(one.guided(), one.steered(*one.text()), steps=4)
    check_equal(one.sample(one.guided(curve=curve(one)), one.steered(*one.text()), steps=4), plain)
    halved = one.guided(curve=curve(one, "0.5, 1; 0.51, 0"), weight_mode="gate")
    ended = one.guided(end_percent=0.5, weight_mode="gate")
    check_equal(one.sample(halved, one.text(), steps=4), one.sample(ended, one.text(), steps=4))
    doubled = one.guided(curve=curve(one, "0, 2"), lambda_fg=0.5, lambda_bg=0.4)
    same = one.guided(lambda_fg=1.0, lambda_bg=0.8)
    check_equal(one.sample(doubled, one.text(), steps=2), one.sample(same, one.text(), steps=2))


def test_a_gate_of_0_is_an_exemplar_left_out(one: GoldenModel) -> None:
    tokens = type(one.tokens)(one.tokens.fg, None)
    gated = one.guided(weight_mode="gate", lambda_fg=1.0, lambda_bg=0.0)
    check_equal(
        one.sample(gated, one.text(), steps=2),
        one.sample(one.guided(tokens=tokens, lambda_fg=1.0), one.text(), steps=2),
    )
