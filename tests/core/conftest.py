"""The networks at the golden file's small size, with its weights."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from cnc_core import FuserConfig, GlobalFuser, Guidance, LocalFuser, Region, UNet

from .golden import Golden, golden, made_state


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small lose more by waiting for a second thread than they win."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def released() -> Golden:
    """What the released code gave."""
    return golden()


@pytest.fixture(scope="session")
def config(released: Golden) -> FuserConfig:
    return released.config


@pytest.fixture(scope="session")
def local_fuser(config: FuserConfig) -> LocalFuser:
    fuser = LocalFuser(config)
    fuser.load_state_dict(made_state(fuser, "local_adapter."))
    return fuser.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def global_fuser(config: FuserConfig) -> GlobalFuser:
    fuser = GlobalFuser(config)
    fuser.load_state_dict(made_state(fuser, "global_adapter."))
    return fuser.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def unet(config: FuserConfig) -> UNet:
    network = UNet(config)
    network.load_state_dict(made_state(network, "model.diffusion_model."))
    return network.eval().requires_grad_(False)


@pytest.fixture()
def guidance(released: Golden) -> Guidance:
    """Soft guidance as the golden values were made with."""
    fg_tokens, bg_tokens = released["out.global_tokens"].chunk(2, dim=1)
    regions = (
        Region(fg_tokens, released["in.mask"], released.lambda_fg),
        Region(bg_tokens, None, released.lambda_bg),
    )
    return Guidance(regions, mode="release", resize="release")
