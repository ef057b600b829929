"""The training loop: a run that was killed ends where an uninterrupted one does, to the bit."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from training.mini.loop import Draw, Plan, Training

PLAN = Plan("toy", steps=12, batch=4, learning_rate=1e-2, seed=5, warm_up=3, log_every=6, save_every=6)


def run(folder: Path, stops: list[int]) -> Training:
    for stop in stops:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 8), nn.SiLU(), nn.Linear(8, 1))
        training = Training(PLAN, model, folder)

        def loss(draw: Draw, model: nn.Module = model) -> tuple[Tensor, dict[str, float]]:
            x = draw.noise(PLAN.batch, 3)
            return (model(x) - x.sum(1, keepdim=True)).square().mean(), {"rows": float(draw.rows(100).sum())}

        training.run(loss, until=stop)
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
