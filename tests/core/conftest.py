"""The networks at the golden file's small size, with its weights."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from cnc_core import FuserConfig, Fusers, GlobalFuser, Guidance, LocalFuser, Region, UNet

from .golden import Golden, State, golden, made_state


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


@pytest.fixture(scope="session")
def fusers(local_fuser: LocalFuser, global_fuser: GlobalFuser, config: FuserConfig) -> Fusers:
    return Fusers(local_fuser, global_fuser, config, {})


@pytest.fixture(scope="session")
def released_state(fusers: Fusers) -> State:
    """All keys of a released file at the small size: the fusers, and SD's beside them."""
    assert fusers.local_fuser is not None
    assert fusers.global_fuser is not None
    return {
        **{f"local_adapter.{key}": value for key, value in fusers.local_fuser.state_dict().items()},
        **{f"global_adapter.{key}": value for key, value in fusers.global_fuser.state_dict().items()},
        "model.diffusion_model.input_blocks.0.0.weight": torch.zeros(32, 4, 3, 3),
        "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": torch.zeros(32, 64),
        "first_stage_model.encoder.conv_in.weight": torch.zeros(8, 3, 3, 3),
        "cond_stage_model.transformer.text_model.embeddings.position_embedding.weight": torch.zeros(77, 64),
        "betas": torch.zeros(1000),
        "alphas_cumprod": torch.zeros(1000),
    }
