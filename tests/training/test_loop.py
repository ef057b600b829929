"""The training loop: a run that was killed ends where an uninterrupted one does, to the bit."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from training.mini.loop import Draw, Line, Loss, Pace, Plan, Training, run_together

PLAN = Plan("toy", steps=12, batch=4, learning_rate=1e-2, seed=5, warm_up=3, log_every=6, save_every=6)


def run(folder: Path, stops: list[int]) -> Training:
    for stop in stops:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 8), nn.SiLU(), nn.Linear(8, 1))
        training = Training(PLAN, model, folder)

        def loss(draw: Draw, model: nn.Module = model) -> tuple[Tensor, dict[str, Tensor]]:
            x = draw.noise(PLAN.batch, 3)
            return (model(x) - x.sum(1, keepdim=True)).square().mean(), {"rows": draw.rows(100).sum()}

        training.begin()
        while training.step < stop:
            training.advance(loss)
        training.save()
    return training


def test_resuming_is_exact(tmp_path: Path) -> None:
    whole, parts = run(tmp_path / "whole", [12]), run(tmp_path / "parts", [5, 9, 12])
    assert parts.step == whole.step == 12
    for a, b in zip([*whole.parameters, *whole.average], [*parts.parameters, *parts.average], strict=True):
        assert torch.equal(a, b)


def test_another_models_run_is_refused(tmp_path: Path) -> None:
    run(tmp_path, [3])
    with pytest.raises(ValueError, match="another model"):
        Training(PLAN, nn.Linear(2, 2), tmp_path)


def test_the_rate_rises_holds_and_falls() -> None:
    plan = Plan("p", steps=100, batch=1, learning_rate=1.0, seed=0, warm_up=10)
    rates = [plan.rate(step) for step in range(100)]
    assert rates[0] < rates[5] < rates[9] == rates[49] > rates[75] > rates[99] > 0


def test_timesteps_cover_their_range() -> None:
    steps = Draw(Plan("p", 1, 10, 1.0, 0), 0).timesteps(1000)
    assert sorted(int(step) // 100 for step in steps) == list(range(10))


def toy(name: str, folder: Path, steps: int, seconds: float = 0.0) -> tuple[Training, Loss]:
    model = nn.Linear(3, 1)

    def loss(draw: Draw) -> tuple[Tensor, dict[str, Tensor]]:
        time.sleep(seconds)
        return model(draw.noise(4, 3)).square().mean(), {}

    return Training(Plan(name, steps, batch=4, learning_rate=1e-2, seed=1), model, folder), loss


def test_lines_end_together_and_their_jobs_follow_each_other(tmp_path: Path) -> None:
    first, second, beside = (toy(name, tmp_path, steps) for name, steps in (("a", 6), ("b", 14), ("c", 10)))
    seen: list[tuple[int, int, int]] = []

    def jobs() -> Iterator[tuple[Training, Loss]]:
        yield first
        seen.append((first[0].step, second[0].step, beside[0].step))
        yield second

    run_together([Line(20, jobs()), Line(10, iter([beside]))])
    assert seen[0][:2] == (6, 0) and seen[0][2] in (3, 4)
    assert [training.step for training, _ in (first, second, beside)] == [6, 14, 10]


def test_a_pace_with_a_deadline_keeps_it_and_scales_all_alike(tmp_path: Path) -> None:
    began = time.monotonic()
    pace = Pace(deadline=began + 2)
    one, other = toy("one", tmp_path, 100_000, 0.001), toy("other", tmp_path, 50_000, 0.001)
    run_together([Line(100_000, iter([one])), Line(50_000, iter([other]))], pace)
    assert time.monotonic() - began < 20 and one[0].step == one[0].plan.steps
    assert one[0].step == pytest.approx(2 * other[0].step, rel=0.01) and pace.share < 0.1
