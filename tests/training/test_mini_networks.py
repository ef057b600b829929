"""The Mini's networks: what is trained narrow is the released layout's function, and diffusion's identities."""

from pathlib import Path

import pytest
import torch

from cnc_core import LocalFuser, UNet
from training.mini.autoencoder import Autoencoder, Widths
from training.mini.clip import ImageEncoder
from training.mini.diffusion import ddim, noised, v_loss, velocity
from training.mini.finished import FinishedMini
from training.mini.model import (
    CONFIG,
    Conditions,
    Mini,
    encode_depth,
    narrowed_streams,
    released_streams,
    small_attention,
)


def test_a_narrow_autoencoder_widens_exactly() -> None:
    torch.manual_seed(0)
    narrow = Autoencoder(Widths((16, 32, 64, 64), (1, 1, 2, 3)), Widths((32, 32, 64, 64), (1, 1, 2, 3)))
    wide, state = Autoencoder(), narrow.released_layout()
    assert float(state.pop("vae_scale")) == pytest.approx(0.18215) and float(state.pop("vae_shift")) == 0
    wide.load_state_dict(state)
    picture = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        latent = narrow.encode(picture)
        assert latent.shape == (1, 4, 4, 4)
        torch.testing.assert_close(wide.encode(picture), latent, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(wide.decode(latent), narrow.decode(latent), atol=1e-6, rtol=1e-5)


def test_narrow_depth_streams_widen_exactly() -> None:
    torch.manual_seed(0)
    mini, wide = Mini(), LocalFuser(CONFIG)
    wide.load_state_dict(released_streams(mini.local_fuser.state_dict(), CONFIG))
    conditions = Conditions(torch.zeros(1, 77, dtype=torch.long), torch.rand(1, 1, 64, 64), torch.rand(1, 1, 64, 64))
    with torch.no_grad():
        narrow, full = encode_depth(mini.local_fuser, conditions), encode_depth(wide, conditions)
    assert narrow is not None and full is not None
    for a, b in zip(narrow.features, full.features, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_small_attention_is_attention() -> None:
    q, k, v = torch.randn(2, 9, 16), torch.randn(2, 5, 16), torch.randn(2, 5, 16)
    mask = torch.randn(2, 1, 9, 5)
    from cnc_core import fused_attention

    for given in (None, mask):
        torch.testing.assert_close(small_attention(q, k, v, 4, given), fused_attention(q, k, v, 4, given))


def test_the_networks_give_predictions_and_embeddings() -> None:
    mini = Mini().eval()
    tokens, depth = torch.zeros(2, 77, dtype=torch.long), torch.rand(2, 1, 64, 64)
    embed = torch.randn(2, 96)
    conditions = Conditions(tokens, depth, depth, embed, embed, (depth > 0.5).float())
    x, t = torch.randn(2, 4, 8, 8), torch.tensor([3, 900])
    with torch.no_grad():
        context = mini.text(tokens)
        v = mini(x, t, context, mini.encode_depth(conditions), mini.guidance(conditions))
        encoder = ImageEncoder()
        assert encoder(encoder.prepare(torch.rand(2, 3, 128, 128))).shape == (2, 96)
    assert context.shape == (2, 77, 96) and v.shape == x.shape
    assert sum(p.numel() for p in UNet(CONFIG).parameters()) * 2 < 16e6


def test_v_and_ddim_recover_the_latent() -> None:
    latent, noise = torch.randn(2, 4, 4, 4), torch.randn(2, 4, 4, 4)
    at = torch.tensor([10, 700])
    target = velocity(latent, noise, at)
    assert float(v_loss(target, target, at)) == 0

    def perfect(x: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        signal = noised(torch.ones(2, 1, 1, 1), torch.zeros(2, 1, 1, 1), timesteps)
        spread = noised(torch.zeros(2, 1, 1, 1), torch.ones(2, 1, 1, 1), timesteps)
        return (signal * x - latent) / spread

    for found in ddim(perfect, noise, 5):
        torch.testing.assert_close(found, latent, atol=1e-3, rtol=1e-3)


def test_the_shipped_fuser_narrows_to_what_trains_and_widens_to_itself(root: Path) -> None:
    wide = FinishedMini.load(root / "models" / "mini").local_fuser.state_dict()
    again = released_streams(narrowed_streams(wide, CONFIG), CONFIG)
    assert list(again) == list(wide) and all(torch.equal(again[key], wide[key]) for key in wide)


def test_weights_that_were_not_trained_narrow_are_refused() -> None:
    with pytest.raises(ValueError, match=r"feature_extractor.+ has weights outside"):
        narrowed_streams(LocalFuser(CONFIG).state_dict(), CONFIG)


def test_without_words_guidance_by_them_changes_nothing(root: Path) -> None:
    """So only half of it is computed: beside a caption, in one batch, all of it is."""
    mini = FinishedMini.load(root / "models" / "mini")
    noise, depth = torch.randn(2, 4, 8, 8), torch.rand(2, 1, 64, 64)
    both = mini.sample(noise, ["", "red cube"], depth, depth, steps=2, cfg=4.0)
    alone = mini.sample(noise[:1], [""], depth[:1], depth[:1], steps=2, cfg=4.0)
    torch.testing.assert_close(alone, both[:1], atol=1e-4, rtol=0)
    assert (both[1] - mini.sample(noise, ["", ""], depth, depth, steps=2)[1]).abs().max() > 0.01
