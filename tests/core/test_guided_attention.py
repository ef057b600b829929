"""Soft guidance against its equations in float64, on inputs drawn anew in every run."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from cnc_core import Guidance, Region, fused_attention, guided_attention, token_mask
from cnc_core.guidance import Mode

from .golden import relative_error

MODES: tuple[Mode, ...] = ("release", "paper")


def by_the_equation(
    q: Tensor, k: Tensor, v: Tensor, heads: int, token_mask: Tensor, mode: Mode, token_bias: Tensor | None
) -> Tensor:
    """Attend in float64, with the softmax written out: weights exp(S), summed and divided by."""
    batch, queries, channels = q.shape
    q, k, v = (t.double().reshape(batch, -1, heads, channels // heads) for t in (q, k, v))
    logits = torch.einsum("bqhd,bkhd->bhqk", q, k) / (channels // heads) ** 0.5
    text = k.shape[1] - token_mask.shape[2]
    factor = torch.cat([torch.ones(*token_mask.shape[:2], text), token_mask], dim=2).double()[:, None]
    if mode == "paper":
        logits = logits * factor
    if token_bias is not None:
        logits = torch.cat([logits[..., :text], logits[..., text:] + token_bias.double()[:, None]], dim=3)
    weights = (logits - logits.amax(3, keepdim=True)).exp()
    if mode == "release":
        weights = weights * factor
    weights = weights / weights.sum(3, keepdim=True)
    return torch.einsum("bhqk,bkhd->bqhd", weights, v).reshape(batch, queries, channels)


@dataclass
class Case:
    """One drawn set of inputs."""

    q: Tensor
    k: Tensor
    v: Tensor
    heads: int
    token_mask: Tensor
    token_bias: Tensor | None

    def to(self, dtype: torch.dtype) -> Case:
        q, k, v = (t.to(dtype) for t in (self.q, self.k, self.v))
        return Case(q, k, v, self.heads, self.token_mask, self.token_bias)

    def expected(self, mode: Mode) -> Tensor:
        return by_the_equation(self.q, self.k, self.v, self.heads, self.token_mask, mode, self.token_bias)

    def attended(self, mode: Mode) -> Tensor:
        return guided_attention(self.q, self.k, self.v, self.heads, self.token_mask, mode, token_bias=self.token_bias)


def drawn(seed: int) -> Case:
    """Draw shapes and values: any text length, 1 to 5 regions of any number of tokens, masks of every kind."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    batch, heads, head_dim = draw.randint(1, 3), draw.choice([1, 2, 5, 8]), draw.choice([4, 8, 40])
    queries, text = draw.randint(1, 90), draw.choice([1, 2, 77, 154, draw.randint(3, 153)])
    masks = []
    for _ in range(draw.randint(1, 5)):
        mask = torch.rand(draw.choice([1, batch]), queries, 1)
        kind = draw.choice(["soft", "binary", "zero", "one", "sparse"])
        if kind == "binary":
            mask = mask.round()
        elif kind in ("zero", "one"):
            mask = torch.full_like(mask, float(kind == "one"))
        elif kind == "sparse":
            mask = mask * (torch.rand_like(mask) < 0.3)
        masks.append(mask.expand(-1, -1, draw.randint(1, 6)))
    shared = batch if any(mask.shape[0] > 1 for mask in masks) else 1
    token_mask = torch.cat([mask.expand(shared, -1, -1) for mask in masks], dim=2).contiguous()
    token_mask[:, draw.randrange(queries)] = 0  # a row of no region at all
    tokens = token_mask.shape[2]
    bias = torch.randn(draw.choice([1, batch]), 1, tokens) if draw.random() < 0.5 else None
    q, k, v = (torch.randn(batch, n, heads * head_dim) for n in (queries, text + tokens, text + tokens))
    return Case(q, k, v, heads, token_mask, bias)


@pytest.fixture()
def seeds() -> list[int]:
    first = random.SystemRandom().randrange(2**31)
    print(f"seeds from {first}")  # pytest shows it where a test fails
    return list(range(first, first + 40))


@pytest.mark.parametrize("mode", MODES)
def test_equals_the_equation(mode: Mode, seeds: list[int]) -> None:
    for seed in seeds:
        case = drawn(seed)
        attended = case.attended(mode)
        assert attended.shape == case.q.shape
        assert relative_error(attended, case.expected(mode)) < 1e-6, seed


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 3e-3), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("mode", MODES)
def test_low_precision(mode: Mode, dtype: torch.dtype, tolerance: float, seeds: list[int]) -> None:
    for seed in seeds:
        case = drawn(seed).to(dtype)
        attended = case.attended(mode)
        assert attended.dtype == dtype
        assert relative_error(attended, case.expected(mode)) < tolerance, seed


@pytest.mark.parametrize("mode", MODES)
def test_gradients_equal_those_of_the_equation(mode: Mode, seeds: list[int]) -> None:
    for seed in seeds[:10]:
        case = drawn(seed)
        inputs = [tensor.requires_grad_() for tensor in (case.q, case.k, case.v)]
        direction = torch.randn_like(case.q)
        expected = torch.autograd.grad((case.expected(mode) * direction).sum(), inputs)
        found = torch.autograd.grad((case.attended(mode) * direction).sum(), inputs)
        for name, gradient, reference in zip("qkv", found, expected, strict=True):
            # Where one key takes all, the gradients of q and k are 0: errors are then those of the direction's size.
            assert (gradient - reference).norm() < 5e-6 * (reference.norm() + 0.1 * direction.norm()), (seed, name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_release_mask_of_zero_is_the_region_never_given(dtype: torch.dtype, seeds: list[int]) -> None:
    for seed in seeds:
        case = drawn(seed).to(dtype)
        case.token_mask[:] = 0
        text = case.k.shape[1] - case.token_mask.shape[2]
        alone = fused_attention(case.q, case.k[:, :text], case.v[:, :text], case.heads)
        tolerance = 1e-6 if dtype == torch.float32 else 1e-2
        assert relative_error(case.attended("release"), alone) < tolerance, seed


@pytest.mark.parametrize("mode", MODES)
def test_mask_of_one_is_plain_attention(mode: Mode, seeds: list[int]) -> None:
    for seed in seeds:
        case = drawn(seed)
        case.token_mask[:], case.token_bias = 1, None
        plain = fused_attention(case.q, case.k, case.v, case.heads)
        assert relative_error(case.attended(mode), plain) < 1e-6, seed


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_large_logits_and_small_masks_stay_finite(mode: Mode, dtype: torch.dtype, seeds: list[int]) -> None:
    for seed in seeds[:10]:
        case = drawn(seed)
        case.q, case.token_mask = case.q * 30, case.token_mask * 1e-6
        assert case.to(dtype).attended(mode).isfinite().all(), seed


def test_paper_mask_of_zero_leaves_the_token_its_share() -> None:
    """The paper's masked token keeps logit 0: beside one text key of logit 0 it takes half of the attention."""
    q, k = torch.zeros(1, 3, 4), torch.randn(1, 2, 4)
    v = torch.tensor([[[0.0] * 4, [1.0] * 4]])
    none = torch.zeros(1, 3, 1)
    assert torch.allclose(guided_attention(q, k, v, 1, none, "paper"), torch.full((1, 3, 4), 0.5))
    assert torch.equal(guided_attention(q, k, v, 1, none, "release"), torch.zeros(1, 3, 4))


def test_through_guidance_as_layers_use_it() -> None:
    """Two regions with lambdas, masks of a batch of 2 and a complement, at a layer of 3 x 5."""
    torch.manual_seed(0)
    mask = torch.rand(2, 1, 12, 10)
    regions = (Region(torch.randn(2, 4, 8), mask, 0.5), Region(torch.randn(1, 3, 8), None, 2.0))
    guidance = Guidance(regions)
    tokens = guidance.tokens()
    assert torch.equal(tokens[1], torch.cat([regions[0].tokens[1] * 0.5, regions[1].tokens[0] * 2.0]))
    states = torch.cat([torch.randn(2, 7, 8), tokens], dim=1)
    q = torch.randn(2, 15, 8)
    cells = token_mask(guidance, 3, 5)
    covered = torch.nn.functional.avg_pool2d(mask, (4, 2)).flatten(2).transpose(1, 2)
    expected = torch.cat([covered.expand(-1, -1, 4), (1 - covered).expand(-1, -1, 3)], dim=2)
    attended = guided_attention(q, states, states, 2, cells, "release")
    assert relative_error(attended, by_the_equation(q, states, states, 2, expected, "release", None)) < 1e-6


@pytest.mark.parametrize(
    ("mask_shape", "mode", "words"),
    [
        ((1, 5, 9), "release", "no text key"),
        ((1, 4, 3), "release", r"\(1 or 2, 5, N\)"),
        ((3, 5, 3), "paper", r"\(1 or 2, 5, N\)"),
        ((1, 5, 3), "both", "mode must be"),
    ],
)
def test_errors_have_the_numbers(mask_shape: tuple[int, ...], mode: Mode, words: str) -> None:
    q, k = torch.zeros(2, 5, 8), torch.zeros(2, 9, 8)
    with pytest.raises(ValueError, match=words):
        guided_attention(q, k, k, 2, torch.ones(mask_shape), mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_kernels_get_a_finite_mask_in_the_dtype_of_q(mode: Mode, dtype: torch.dtype, seeds: list[int]) -> None:
    """Hosts' kernels add it to logits in q's dtype: an infinity there, or another dtype, is wrong or slow."""
    masks = []

    def kernel(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
        assert mask is not None
        masks.append(mask)
        return fused_attention(q, k, v, heads, mask)

    for seed in seeds[:10]:
        case = drawn(seed).to(dtype)
        guided_attention(case.q, case.k, case.v, case.heads, case.token_mask, mode, kernel=kernel)
        mask, batch = masks.pop(), case.q.shape[0]
        assert mask.dtype == dtype
        assert mask.isfinite().all()
        assert mask.shape[0] in (1, batch)
        assert mask.shape[1] in (1, case.heads)
        assert mask.shape[2:] == (case.q.shape[1], case.k.shape[1])


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("mode", MODES)
def test_products_beyond_fp16_are_no_nan(mode: Mode, share: float) -> None:
    """A logit that fp16 holds may come of a q.k that it does not."""
    q, k, v = (torch.randn(2, n, 8 * 40).half() for n in (16, 11, 11))
    q[:, 0], q[:, 1], k[:, -1] = 60, -60, 60  # q.k is 144,000, S is 22,768
    case = Case(q, k, v, 8, torch.full((1, 16, 4), share), None)
    attended = case.attended(mode)
    assert torch.isfinite(attended).all()
    if share > 0:  # a mask of 0 takes S away again, at fp16's precision of S
        assert relative_error(attended, case.expected(mode)) < 3e-3
