"""What a run may be told beside the recipe (precision, 8-bit Adam, compilation, edges), and `import training`."""

from __future__ import annotations

import builtins
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cnc_core import load_fusers
from training.config import ConfigError
from training.train import Trainer, train_stage
from training.train.logs import read_log

from .train_inputs import tiny_config, write_set


def losses(config: Any) -> list[float]:
    return [line["loss"] for line in read_log(config.out) if "loss" in line]


def test_eight_bit_adam_learns_and_goes_on_to_the_bit(tmp_path: Path) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    whole = tiny_config(tmp_path, optimizer="adamw8bit", out=tmp_path / "whole")
    parted = replace(whole, out=tmp_path / "parted")
    train_stage(whole)
    train_stage(replace(parted, steps=4))
    train_stage(parted)
    assert losses(parted) == losses(whole)
    trainer = Trainer(whole)
    assert isinstance(trainer.optimizer, bitsandbytes.optim.AdamW8bit)
    trainer.train_step([trainer.loader.training(turns) for turns in trainer.own_turns(0)])
    moments = [state["state1"].dtype for state in trainer.optimizer.state.values()]
    assert torch.uint8 in moments, "the moments are in 8 bits, but for those of small tensors"
    weights = [load_fusers(config.out / "best.safetensors").local_fuser.state_dict() for config in (whole, parted)]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


def test_eight_bit_adam_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name.startswith("bitsandbytes"):
            raise ImportError(name)
        return found(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match="8-bit AdamW needs bitsandbytes: `pip install bitsandbytes`"):
        Trainer(tiny_config(tmp_path, optimizer="adamw8bit"))


def test_half_precision_without_a_gpu_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"fp16 needs a GPU.*bf16"):
        train_stage(tiny_config(tmp_path, mixed_precision="fp16"))


@pytest.mark.slow
def test_compiled_networks_learn_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but the kernels that the compiler would write: those are torch's, and take minutes on a CPU."""
    compile_ = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda module: compile_(module, backend="aot_eager", fullgraph=True)
    )
    plain = tiny_config(tmp_path, steps=2, out=tmp_path / "plain")
    compiled = replace(plain, compile=True, out=tmp_path / "compiled")
    torch._dynamo.utils.counters.clear()
    for config in (plain, compiled):
        train_stage(config)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert losses(compiled) == pytest.approx(losses(plain), rel=1e-5)
    assert load_fusers(compiled.out / "best.safetensors").local_fuser is not None


def test_a_checkpoint_says_which_maps_it_wants(tmp_path: Path) -> None:
    write_set(tmp_path / "edges", condition="canny")
    config = tiny_config(tmp_path, data=(tmp_path / "edges",), condition="canny", steps=2)
    assert load_fusers(train_stage(config).weights).metadata["conditions"] == "canny"


def test_a_run_sees_all_its_sets_and_keeps_to_their_order(tmp_path: Path) -> None:
    """As the paper trains on COCO-Stuff and Pick-a-Pic together."""
    config = tiny_config(tmp_path, steps=2)
    both = (*config.data, write_set(tmp_path / "more", samples=9))
    trainer = Trainer(replace(config, data=both))
    assert len(trainer.order) == 23 + 9 - 3
    turns = trainer.order.turns(0, len(trainer.order))
    assert {turn.sample for turn in turns} | set(trainer.order.held_out) == set(range(32))
    train_stage(replace(config, data=both))
    with pytest.raises(ConfigError, match="trained on other sets"):
        train_stage(replace(config, data=both[::-1], steps=4))
    assert train_stage(replace(config, data=both, steps=4)).steps == 4


def test_a_notebook_reaches_all_parts(root: Path) -> None:
    """By `import training` alone, which itself imports next to nothing."""
    script = (
        "import sys, training; assert 'torch' not in sys.modules\n"
        "training.prepare.PrepareConfig, training.prepare.prepare, training.prepare.draw_sheet\n"
        "training.prepared.PreparedSet, training.train.TrainConfig, training.train.train_stage\n"
        "training.weights.convert, training.weights.merge_fusers, training.weights.export_fusers, training.evaluate\n"
        "try: training.nothing\n"
        "except AttributeError: print('told')"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "told"
