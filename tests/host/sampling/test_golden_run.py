"""The released code's sampling run through the host's own KSampler, however the host batches it."""

from __future__ import annotations

from typing import Any

import pytest

from .golden_model import Chunks, GoldenModel, check_equal


@pytest.fixture(params=["attention_sub_quad", "attention_pytorch"])
def kernel(request: pytest.FixtureRequest, small: GoldenModel, monkeypatch: pytest.MonkeyPatch) -> str:
    """The host's attention during the test, which its command line chooses for a whole process."""
    import comfy.ldm.modules.attention as attention

    chosen = getattr(attention, request.param)
    monkeypatch.setattr(attention, "optimized_attention", chosen)
    monkeypatch.setattr(attention, "optimized_attention_masked", chosen)
    name: str = request.param
    return name


@pytest.fixture()
def chunks(one: GoldenModel) -> Chunks:
    return Chunks(one.guided())


def negative_first(model: Any) -> Any:
    """A guider that asks for (negative, positive), where the host's own asks for (positive, negative)."""
    import comfy.samplers

    class NegativeFirst(comfy.samplers.CFGGuider):
        def predict_noise(self, x: Any, timestep: Any, model_options: Any = None, seed: Any = None) -> Any:
            sides = [self.conds["negative"], self.conds["positive"]]
            uncond, cond = comfy.samplers.calc_cond_batch(self.inner_model, sides, x, timestep, model_options)
            return uncond + self.cfg * (cond - uncond)

    return NegativeFirst(model)


def test_in_one_batch(small: GoldenModel, kernel: str) -> None:
    chunks = Chunks(small.guided())
    check_equal(small.golden_run(chunks.model), small.released["out.ddim_pred_x0"])
    assert chunks.seen == [[1, 0]] * small.released.steps


def test_in_one_batch_the_other_way_round(one: GoldenModel, chunks: Chunks) -> None:
    check_equal(one.golden_run(chunks.model, guider=negative_first), one.released["out.ddim_pred_x0"])
    assert chunks.seen == [[1, 0]] * one.released.steps  # of (negative, positive) now


@pytest.mark.parametrize("guider", [None, negative_first])
def test_apart_since_memory_is_short(one: GoldenModel, guider: Any) -> None:
    """Two in a batch would need more memory than any machine has, says the model to the host."""
    model = one.new_model(memory_usage_factor=1e12)
    chunks = Chunks(one.guided(model))
    check_equal(one.golden_run(chunks.model, guider=guider), one.released["out.ddim_pred_x0"])
    assert chunks.seen == [[1], [0]] * one.released.steps


def test_apart_since_controls_differ(one: GoldenModel, chunks: Chunks, kernel: str) -> None:
    """Two Apply Local Fuser, one for each prompt."""
    positive, negative = one.text()
    positive, _ = one.steered(positive, [])
    _, negative = one.steered([], negative)
    check_equal(one.sample(chunks.model, (positive, negative)), one.released["out.ddim_pred_x0"])
    assert chunks.seen == [[0], [1]] * one.released.steps


def test_apart_since_hooks_differ(one: GoldenModel, chunks: Chunks) -> None:
    """A hook on the positive prompt alone."""
    import comfy.hooks

    hooks = comfy.hooks.HookGroup()
    hooks.add(comfy.hooks.TransformerOptionsHook(transformers_dict={"someones": "option"}))
    positive, negative = one.steered(*one.text())
    positive[0][1]["hooks"] = hooks
    check_equal(one.sample(chunks.model, (positive, negative)), one.released["out.ddim_pred_x0"])
    assert chunks.seen == [[0], [1]] * one.released.steps


def test_reference(small: GoldenModel) -> None:
    """What other tests compare with, the core in plain torch, is itself right."""
    check_equal(small.expected(small.guidance()), small.released["out.ddim_pred_x0"])
