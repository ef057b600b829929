"""U2-Net and U2-Net-p against the authors' definition: its keys, its shapes and what it gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from cnc_core.perception import PerceptionError, estimate, load_saliency
from cnc_core.perception.u2net import U2NET_WIDTHS, U2NETP_WIDTHS, U2Net

from ..core.golden import made_weight

State = dict[str, Tensor]
NETWORKS = {"u2net": U2NET_WIDTHS, "u2netp": U2NETP_WIDTHS}


def public_shapes(data: Path, name: str) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of the authors' model/u2net.py."""
    column = 1 + list(NETWORKS).index(name)
    rows = [line.split("\t") for line in (data / "u2net_keys.tsv").read_text().splitlines()]
    return {row[0]: () if row[column] == "scalar" else tuple(map(int, row[column].split("x"))) for row in rows}


def made_state(data: Path, name: str) -> State:
    """Made-up weights under the authors' keys; variances are positive."""
    state = {}
    for key, shape in public_shapes(data, name).items():
        if key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(0)
        else:
            weight = made_weight(key, shape)
            state[key] = 0.5 + weight.abs() if key.endswith("running_var") else weight
    return state


def picture(height: int, width: int) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def small(data: Path) -> State:
    return made_state(data, "u2netp")


@pytest.mark.parametrize("name", NETWORKS)
def test_keys_and_shapes_are_the_authors(data: Path, name: str) -> None:
    with torch.device("meta"):
        ours = U2Net(NETWORKS[name]).state_dict()
    assert {key: tuple(value.shape) for key, value in ours.items()} == public_shapes(data, name)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [(64, 96), (50, 37)])
def test_the_map_is_what_the_authors_network_gives(
    data: Path, tmp_path: Path, name: str, size: tuple[int, int]
) -> None:
    torch.save(made_state(data, name), tmp_path / "weights.pth")
    network = load_saliency("weights.pth", [tmp_path]).network
    expected = load_file(data / "u2net_golden.safetensors")["{}.{}x{}".format(name, *size)]
    assert expected.std() > 0.05
    torch.testing.assert_close(network(picture(*size)), expected, atol=1e-5, rtol=0)


def test_the_releases_way(small: State, tmp_path: Path) -> None:
    """320 x 320, raw, sigmoid of the fused map, bilinear back."""
    torch.save(small, tmp_path / "u2netp.pth")
    estimator = load_saliency("u2netp.pth", [tmp_path])
    image = 0.7 * picture(40, 56).movedim(1, -1)
    network = U2Net(U2NETP_WIDTHS)
    network.load_state_dict(small)
    with torch.no_grad():
        at_320 = network.eval()(F.interpolate(image.movedim(-1, 1), (320, 320), mode="bilinear"))
    expected = F.interpolate(at_320, (40, 56), mode="bilinear")[:, 0]
    released = estimate(estimator, image, preprocessing="release")
    torch.testing.assert_close(released, expected, atol=1e-5, rtol=0)
    assert (estimate(estimator, image) - expected).abs().max() > 0.01


def test_a_file_from_before_the_counter_of_batches_loads(small: State, tmp_path: Path) -> None:
    old = {key: value for key, value in small.items() if not key.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    torch.save(small, tmp_path / "new.pth")
    first, second = (load_saliency(name, [tmp_path]).network(picture(64, 64)) for name in ("old.pth", "new.pth"))
    assert torch.equal(first, second)


def without_a_side(path: Path, state: State) -> None:
    torch.save({key: value for key, value in state.items() if key != "side3.weight"}, path)


def with_more(path: Path, state: State) -> None:
    torch.save({**state, "stage7.weight": torch.zeros(2)}, path)


def of_another_width(path: Path, state: State) -> None:
    torch.save({**state, "side2.weight": torch.zeros(1, 65, 3, 3)}, path)


def stable_diffusion(path: Path, _: State) -> None:
    weights = {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(320, 4, 3, 3)}
    torch.save({"state_dict": weights, "global_step": 470000}, path)


def cut_short(path: Path, state: State) -> None:
    torch.save(state, path)
    path.write_bytes(path.read_bytes()[:100_000])


def a_whole_module(path: Path, _: State) -> None:
    torch.save(torch.nn.Conv2d(1, 1, 1), path)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (without_a_side, r"U2-Net-p of xuebinqin.* \(1 weights are missing, such as side3\.weight\)"),
        (with_more, r"1 weights are unknown, such as stage7\.weight"),
        (of_another_width, r"1 weights are of another shape, such as side2\.weight \(1, 65, 3, 3\) for"),
        (stable_diffusion, "U2-Net of xuebinqin.*it is a diffusion U-Net"),
        (cut_short, "cut short"),
        (a_whole_module, "code in it.*not executed"),
        (lambda path, _: path.write_bytes(b"not weights"), "neither a safetensors file nor a whole one"),
        (lambda path, _: path.write_bytes(b""), "empty file"),
    ],
)
def test_another_file_is_told_with_what_is_off(
    small: State, tmp_path: Path, write: Callable[[Path, State], object], message: str
) -> None:
    write(tmp_path / "weights.pth", small)
    with pytest.raises(PerceptionError, match=message):
        load_saliency("weights.pth", [tmp_path])
