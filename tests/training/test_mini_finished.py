"""Going on from the finished files: what was widened for them is cut back without a change."""

from __future__ import annotations

from pathlib import Path

import torch

from training.mini.command import Chain
from training.mini.finished import FinishedMini
from training.mini.model import CONFIG, released_streams
from training.mini.stage_autoencoder import narrowed


def test_training_goes_on_from_the_finished_weights(root: Path, tmp_path: Path) -> None:
    models = root / "models" / "mini"
    model, finished = Chain(tmp_path, models, resume=True).model("joint"), FinishedMini.load(models)
    for mine, theirs in ((model.unet, finished.unet), (model.text, finished.text)):
        assert all(torch.equal(mine.state_dict()[key], value) for key, value in theirs.state_dict().items())
    widened = released_streams(model.local_fuser.state_dict(), CONFIG)
    assert all(torch.equal(widened[key], value) for key, value in finished.local_fuser.state_dict().items())


def test_the_narrow_autoencoder_computes_what_the_finished_one_does(root: Path) -> None:
    finished = FinishedMini.load(root / "models" / "mini").autoencoder
    picture = torch.rand(1, 3, 64, 64)
    narrow = narrowed(finished)
    assert sum(p.numel() for p in narrow.parameters()) < sum(p.numel() for p in finished.parameters())
    latent = finished.encode(picture)
    assert torch.allclose(narrow.encode(picture), latent, atol=1e-4)
    assert torch.allclose(narrow.decode(latent), finished.decode(latent), atol=1e-4)
