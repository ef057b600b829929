"""Pictures of a prepared set by a base model and fusers, as folders that the tables read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cnc_core import CheckpointError, Fusers, GlobalFuser, LocalFuser, save_fusers
from training.config import ConfigError
from training.evaluate import generate as module
from training.evaluate.generate import GenerateConfig, generate
from training.evaluate.pictures import Pictures, read_captions
from training.prepared import PreparedSet

from .train_inputs import TINY, write_base, write_set


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny base, its fusers with weights that do something, and a set."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(1)
    fusers = Fusers(LocalFuser(TINY), GlobalFuser(TINY), TINY, {})
    with torch.no_grad():
        for parameter in (*fusers.local_fuser.parameters(), *fusers.global_fuser.parameters()):
            parameter.add_(0.05 * torch.randn_like(parameter))
    save_fusers(folder / "fusers.safetensors", fusers, {"num_heads": "2"})
    write_base(folder / "base.safetensors")
    write_set(folder / "set", 6)
    return folder


@pytest.fixture
def config(model: Path, tmp_path: Path) -> GenerateConfig:
    return GenerateConfig(
        data=model / "set", base=model / "base.safetensors", fusers=(model / "fusers.safetensors",),
        out=tmp_path / "out", steps=2, cfg=2.0, limit=3, batch=2, device="cpu", threads=1,
    )  # fmt: skip


def pictures(config: GenerateConfig) -> torch.Tensor:
    generate(config)
    made = Pictures(config.out / "made")
    return torch.stack([made.read(name) for name in made.files]).float()


def test_a_folder_is_made_with_all_that_the_tables_need(config: GenerateConfig) -> None:
    found = pictures(config)
    assert found.shape == (3, 3, 128, 128)
    names = list(Pictures(config.out / "made").files)
    assert names == list(Pictures(config.out / "masks").files) == list(Pictures(config.out / "true").files)
    assert read_captions(config.out / "captions.txt") == dict.fromkeys(names, "a red cube")


def test_neither_the_batch_nor_a_stop_changes_a_picture(config: GenerateConfig, tmp_path: Path) -> None:
    whole = pictures(config)
    alone = replace(config, batch=1, out=tmp_path / "alone", limit=1)
    pictures(alone)
    assert (pictures(replace(alone, limit=3)) - whole).abs().max() <= 1, "one step of a byte at most"


@pytest.mark.parametrize(
    "change",
    [
        {"conditions": "depth"}, {"conditions": "semantics"}, {"depth_version": "v1"}, {"depth_version": "v3"},
        {"same_maps": True}, {"same_exemplar": True}, {"bg_exemplar_from": 1}, {"prompt": ""}, {"lambda_bg": 0.0},
        {"lambda_fg": 2.0}, {"mode": "paper"}, {"seed": 1}, {"cfg": 1.0},
    ],
)  # fmt: skip
def test_every_setting_acts(config: GenerateConfig, tmp_path: Path, change: dict[str, object]) -> None:
    one = replace(config, limit=1)
    other = replace(one, out=tmp_path / "other", **change)  # type: ignore[arg-type]
    assert (pictures(one) != pictures(other)).any()


def test_a_folder_is_not_gone_on_with_under_other_settings(config: GenerateConfig) -> None:
    generate(replace(config, limit=1))
    with pytest.raises(ConfigError, match="lambda_bg"):
        generate(replace(config, lambda_bg=0.5))


def test_what_the_conditions_need_has_to_be_there(config: GenerateConfig, model: Path, tmp_path: Path) -> None:
    only_local = tmp_path / "local.safetensors"
    save_fusers(only_local, Fusers(LocalFuser(TINY), None, TINY, {}), {})
    with pytest.raises(CheckpointError, match="global fuser"):
        generate(replace(config, fusers=(only_local,)))
    generate(replace(config, fusers=(only_local,), conditions="depth", limit=1))
    with pytest.raises(ValueError, match="at least 1"):
        replace(config, steps=0)


def test_exemplars_may_be_another_samples(config: GenerateConfig) -> None:
    samples = module._Samples(replace(config, exemplars_from=2, bg_exemplar_from=3))
    data = PreparedSet(config.data)
    asked = samples.asked([5, 0])
    assert torch.equal(asked.fg_embed, data.batch([1, 2])["source_embed"])
    assert torch.equal(asked.bg_embed, data.batch([2, 3])["background_embed"])
    assert torch.equal(asked.fg_depth, data.batch([5, 0])["fg_depth"])
