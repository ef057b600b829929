"""The Mini's network behind the boundary, with made-up weights; whether it is good is training's to say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cnc_core.perception import MiniEstimator, MiniNet, PerceptionError, estimate, load_mini


@pytest.fixture
def network() -> MiniNet:
    torch.manual_seed(0)
    return MiniNet().eval()


def saved(path: Path, network: MiniNet, dtype: torch.dtype = torch.float16) -> Path:
    save_file({key: value.to(dtype).contiguous() for key, value in network.state_dict().items()}, path)
    return path


def test_the_network_is_small_and_keeps_the_size(network: MiniNet) -> None:
    assert sum(parameter.numel() for parameter in network.parameters()) <= 600_000
    assert network(torch.rand(2, 3, 48, 80)).shape == (2, 1, 48, 80)
    with pytest.raises(ValueError, match=r"multiples of 16.*\(1, 3, 50, 64\)"):
        network(torch.rand(1, 3, 50, 64))


@pytest.mark.parametrize("size", [(128, 128), (1, 1), (37, 250), (300, 20), (3, 2000)])
@pytest.mark.parametrize("kind", ["depth", "saliency"])
def test_any_size_comes_back_at_its_size(network: MiniNet, kind: str, size: tuple[int, int]) -> None:
    value = estimate(MiniEstimator(kind, network), torch.rand(2, *size, 3))
    assert value.shape == (2, *size)
    assert torch.isfinite(value).all()
    if kind == "saliency":
        assert value.min() >= 0 and value.max() <= 1


def test_pictures_of_the_training_size_reach_the_network_untouched(network: MiniNet) -> None:
    image = torch.rand(2, 128, 192, 3)
    prepared = MiniEstimator("depth", network).prepare(image)
    assert torch.equal(prepared, image.movedim(-1, 1))
    with torch.no_grad():
        raw = network(prepared.contiguous())[:, 0]
    assert raw.min() < 0, "the case is to have an overshoot, which is cut off"
    assert torch.equal(estimate(MiniEstimator("depth", network), image), raw.clamp(0, 1))
    assert torch.equal(estimate(MiniEstimator("saliency", network), image), raw.sigmoid())


@pytest.mark.parametrize("kind", ["depth", "saliency"])
def test_how_a_picture_lies_in_memory_does_not_matter(network: MiniNet, kind: str) -> None:
    last = torch.rand(2, 128, 128, 3)
    first = last.movedim(-1, 1).contiguous().movedim(1, -1)
    assert first.stride() != last.stride()
    estimator = MiniEstimator(kind, network)
    assert torch.equal(estimate(estimator, first), estimate(estimator, last))


def test_the_caller_may_run_the_network_itself(network: MiniNet) -> None:
    seen = []

    def run(prepared: torch.Tensor) -> torch.Tensor:
        seen.append(prepared.shape)
        return prepared[:, :1]

    value = estimate(MiniEstimator("depth", network), torch.full((1, 64, 64, 3), 0.25), run=run)
    assert seen == [(1, 3, 128, 128)]
    assert torch.allclose(value, torch.tensor(0.25))


def test_weights_come_back_from_half_precision(tmp_path: Path, network: MiniNet) -> None:
    loaded = load_mini("depth", saved(tmp_path / "depth.safetensors", network))
    assert {value.dtype for value in loaded.network.state_dict().values()} == {torch.float32}
    image = torch.rand(1, 64, 64, 3)
    assert torch.allclose(estimate(loaded, image), estimate(MiniEstimator("depth", network), image), atol=1e-2)


def test_a_wrong_file_is_told(tmp_path: Path, network: MiniNet) -> None:
    with pytest.raises(PerceptionError, match=r"not at .*none\.safetensors.*Install the pack again"):
        load_mini("depth", tmp_path / "none.safetensors")
    cut = saved(tmp_path / "cut.safetensors", network)
    cut.write_bytes(cut.read_bytes()[:-100])
    with pytest.raises(PerceptionError, match="cut short"):
        load_mini("saliency", cut)
    save_file({"stem.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(PerceptionError, match=r"other.*weights are missing.*stem|other.*missing"):
        load_mini("depth", tmp_path / "other.safetensors")
