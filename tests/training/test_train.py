"""Training a stage: what is drawn, what learns, what stays as it is, and what a run leaves."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from cnc_core import CheckpointError, load_fusers
from training.config import ConfigError, load_config
from training.diffusion import min_snr_weights, noised, target
from training.files import FolderInUse, only_run_in
from training.prepared import PreparedError, PreparedSet
from training.train import TrainConfig, Trainer, TrainingStopped, train_stage
from training.train.config import DROPS
from training.train.draws import draw
from training.train.grids import LABEL_HEIGHT
from training.train.logs import read_log
from training.train.order import Drawn, Order
from training.train.plan import plan

from .train_inputs import TINY, tiny_config, write_base, write_set

ABLATIONS = {"ablation": "local", "mini_ablation": "mini"}
"""Recipes of the paper's Figure 3, and what each is an ablation of."""
RECIPES = Path(__file__).resolve().parents[2] / "training" / "recipes"


def test_every_epoch_is_a_permutation_and_the_held_out_never_come() -> None:
    order = Order(50, seed=3, held_out=8)
    turns = order.turns(0, 3 * len(order))
    epochs = [[turn.sample for turn in turns if turn.epoch == epoch] for epoch in range(3)]
    assert all(sorted(epoch) == sorted(set(range(50)) - set(order.held_out)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert Order(50, seed=3, held_out=8).turns(37, 20) == turns[37:57]
    assert Order(50, seed=4, held_out=8).turns(0, 42) != turns[:42]
    with pytest.raises(ValueError, match="leave none of 50"):
        Order(50, seed=3, held_out=50)


def test_drops_come_at_their_rates_and_independently(tmp_path: Path) -> None:
    rates = dict(zip(DROPS, (0.1, 0.2, 0.3, 0.05, 0.5), strict=True))
    config = tiny_config(tmp_path, keep_all=0.2, drop_all=0.1, **rates)
    count = 20_000
    kept = draw(config, [Drawn(0, index) for index in range(count)], [1] * count, (1,)).kept.numpy()

    def near(share: float, expected: float) -> bool:
        return abs(share - expected) < 4.5 * math.sqrt(expected * (1 - expected) / count)

    for column, rate in zip(kept.T, rates.values(), strict=True):
        assert near(1 - column.mean(), 0.1 + 0.7 * rate)
    assert near((~kept).all(1).mean(), 0.1 + 0.7 * math.prod(rates.values()))
    assert near(kept.all(1).mean(), 0.2 + 0.7 * math.prod(1 - rate for rate in rates.values()))
    both = (~kept[:, 1]) & (~kept[:, 2])
    assert near(both.mean(), 0.1 + 0.7 * rates["drop_fg_depth"] * rates["drop_bg_depth"])


def test_a_samples_chance_is_its_own(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    together = draw(config, [Drawn(2, 5), Drawn(2, 9)], [2, 2], (4, 3, 3), dropout=7)
    alone = draw(config, [Drawn(2, 9)], [2], (4, 3, 3), dropout=7)
    later = draw(config, [Drawn(3, 9)], [2], (4, 3, 3), dropout=7)
    for name in ("timesteps", "noise", "kept", "dropout"):
        assert torch.equal(getattr(together, name)[1:], getattr(alone, name)), name
    assert not torch.equal(later.noise, alone.noise)
    assert abs(float(draw(config, [Drawn(0, k) for k in range(500)], [1] * 500, (4, 4, 4)).noise.std()) - 1) < 0.02


@pytest.mark.parametrize("prediction", ["eps", "v"])
@pytest.mark.parametrize("gamma", [0.0, 5.0])
def test_the_loss_is_the_formula_in_float64(tmp_path: Path, prediction: str, gamma: float) -> None:
    write_base(tmp_path / "base.safetensors", prediction={"eps": "epsilon", "v": "v_prediction"}[prediction])
    write_set(tmp_path / "set")
    trainer = Trainer(tiny_config(tmp_path, min_snr=gamma))
    batch = trainer.loader.training(trainer.order.turns(0, 12)).moved(trainer.device)
    answer = torch.randn(batch.latents().shape)
    given: list[Tensor] = []

    def model(x: Tensor, *_: object) -> Tensor:
        given.append(x)
        return answer

    losses = trainer.losses(model, batch)  # type: ignore[arg-type]
    betas = np.linspace(math.sqrt(0.00085), math.sqrt(0.012), 1000, dtype=np.float64) ** 2
    alpha = np.cumprod(1 - betas)[batch.draws.timesteps.numpy()][:, None, None, None]
    latent, noise = batch.latents().double().numpy(), batch.draws.noise.double().numpy()
    wanted = noise if prediction == "eps" else np.sqrt(alpha) * noise - np.sqrt(1 - alpha) * latent
    expected = ((answer.double().numpy() - wanted) ** 2).mean((1, 2, 3))
    if gamma:
        snr = (alpha / (1 - alpha))[:, 0, 0, 0]
        expected *= np.minimum(snr, gamma) / (snr if prediction == "eps" else snr + 1)
    np.testing.assert_allclose(losses.numpy(), expected, rtol=2e-5)
    np.testing.assert_allclose(given[0].numpy(), np.sqrt(alpha) * latent + np.sqrt(1 - alpha) * noise, atol=1e-5)


def test_min_snr_weighs_the_error_of_the_latent_alike_for_both_predictions() -> None:
    """A model's eps and v that stand for one latent have one weighted loss."""
    generator = torch.Generator().manual_seed(0)
    latent, noise, guess = (torch.randn(9, 4, 3, 3, generator=generator, dtype=torch.float64) for _ in range(3))
    timesteps = torch.linspace(5, 995, 9).long()
    x = noised(latent, noise, timesteps)
    losses = []
    for prediction in ("eps", "v"):
        wanted = target(prediction, latent, noise, timesteps)
        signal, spread = (
            (noised(one, zero, timesteps)) for one, zero in ((torch.ones_like(x), 0 * x), (0 * x, 0 * x + 1))
        )
        eps = (x - signal * guess) / spread
        guessed = eps if prediction == "eps" else signal * eps - spread * guess
        losses.append((guessed - wanted).square().mean((1, 2, 3)) * min_snr_weights(prediction, timesteps, 5.0))
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-5, atol=0)


@pytest.mark.parametrize("stage", ["local", "global", "joint"])
def test_the_base_model_is_frozen_and_all_of_the_fusers_learns(tmp_path: Path, stage: str) -> None:
    start = ()
    if stage == "joint":
        start = tuple(
            train_stage(tiny_config(tmp_path, stage=part, out=tmp_path / part, steps=3)).weights
            for part in ("local", "global")
        )
    trainer = Trainer(tiny_config(tmp_path, stage=stage, fusers=start))
    frozen = {name: tensor.clone() for name, tensor in trainer.network.unet.state_dict().items()}
    before = {name: parameter.detach().clone() for name, parameter in trainer.parameters.items()}
    assert all(name.startswith(("local_fuser.", "global_fuser.")) for name in trainer.parameters)
    grew: set[str] = set()
    for _ in range(4):  # gradients reach what is behind a zero convolution once that has left zero
        turns = trainer.own_turns(trainer.step)
        trainer.gradients([trainer.loader.training(turn) for turn in turns])
        assert all(parameter.grad is None for parameter in trainer.network.unet.parameters())
        grew |= {name for name, parameter in trainer.parameters.items() if parameter.grad.any()}
        trainer.optimizer.zero_grad()
        trainer.train_step([trainer.loader.training(turn) for turn in turns])
    assert grew == set(trainer.parameters)
    for name, tensor in trainer.network.unet.state_dict().items():
        assert torch.equal(tensor, frozen[name]), name
    assert all(not torch.equal(parameter, before[name]) for name, parameter in trainer.parameters.items())


def test_the_encoders_attention_teaches_the_tokens_only_where_asked(tmp_path: Path) -> None:
    gradients = {}
    for learns in (False, True):
        trainer = Trainer(tiny_config(tmp_path, stage="global", encoder_gradient=learns))
        trainer.gradients([trainer.loader.training(turn) for turn in trainer.own_turns(0)])
        gradients[learns] = {name: parameter.grad for name, parameter in trainer.parameters.items()}
        saved = {name: tensor.clone() for name, tensor in trainer.network.state_dict().items()}
    # The same tokens given to the decoder alone, the encoder having seen them as constants.
    assert not all(torch.allclose(gradients[True][n], g, rtol=1e-3, atol=0) for n, g in gradients[False].items())
    trainer.network.load_state_dict(saved)
    trainer.network.zero_grad()
    encode = trainer.network.unet.encode

    def constant(x: Tensor, timesteps: Tensor, context: object) -> object:
        encoded = encode(x, timesteps, context)
        detached = type(encoded)(
            encoded.middle.detach(), tuple(s.detach() for s in encoded.skips), encoded.emb.detach()
        )
        return detached

    trainer.network.unet.encode = constant
    trainer.gradients([trainer.loader.training(turn) for turn in trainer.own_turns(0)])
    for name, parameter in trainer.parameters.items():
        torch.testing.assert_close(parameter.grad, gradients[False][name], rtol=1e-5, atol=1e-8)


def test_what_is_dropped_is_zero_and_the_empty_text(tmp_path: Path) -> None:
    trainer = Trainer(tiny_config(tmp_path, stage="local", drop_all=1.0))
    batch = trainer.loader.training(trainer.order.turns(0, 3)).moved(trainer.device)
    conditions = trainer.loader.conditions(batch)
    for name in ("fg_depth", "bg_depth", "fg_embed", "bg_embed"):
        assert not getattr(conditions, name).any(), name
    assert all(torch.equal(text, conditions.text[0]) for text in conditions.text)
    kept = replace(batch, draws=replace(batch.draws, kept=torch.ones_like(batch.draws.kept)))
    samples = trainer.data.batch([turn.sample for turn in trainer.order.turns(0, 3)])
    conditions = trainer.loader.conditions(kept)
    assert torch.equal(conditions.fg_depth, samples["fg_depth"])
    chosen = [samples["text"][row, caption] for row, caption in enumerate(batch.draws.captions)]
    assert torch.equal(conditions.text, torch.stack(chosen))


def test_the_ablation_sees_the_sources_depth_in_both_streams(tmp_path: Path) -> None:
    trainer = Trainer(tiny_config(tmp_path, streams="source", drop_fg_depth=0.0, drop_bg_depth=0.0))
    turns = trainer.order.turns(0, 4)
    conditions = trainer.loader.conditions(trainer.loader.training(turns).moved(trainer.device))
    depth = trainer.data.batch([turn.sample for turn in turns])["source_depth"]
    assert torch.equal(conditions.fg_depth, depth)
    assert torch.equal(conditions.bg_depth, depth)


def test_micro_batches_and_checkpointing_change_nothing_but_rounding(tmp_path: Path) -> None:
    gradients = []
    for fields in ({}, {"micro_batch": 2}, {"gradient_checkpointing": True}):
        trainer = Trainer(tiny_config(tmp_path, **fields))
        loss = trainer.gradients([trainer.loader.training(turn) for turn in trainer.own_turns(0)])
        gradients.append([torch.tensor(loss), *(parameter.grad for parameter in trainer.parameters.values())])
    for other in gradients[1:]:
        for found, expected in zip(other, gradients[0], strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    "fields", [{"mixed_precision": "bf16"}, {"ema": 0.5, "clip": 0.1, "schedule": "cosine"}], ids=str
)
def test_a_run_leaves_what_comfyui_loads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], fields: dict[str, object]
) -> None:
    config = tiny_config(tmp_path, grid_every=3, grid_steps=2, grid_samples=2, tensorboard=True, keep=2, **fields)
    result = train_stage(config)
    out = capsys.readouterr().out
    assert str(result.best) in out and "models/cnc" in out
    fusers = load_fusers(result.best)
    assert fusers.local_fuser is not None and fusers.global_fuser is None
    assert {p.dtype for p in fusers.local_fuser.parameters()} == {torch.float32}
    told = fusers.metadata
    assert (told["stage"], told["conditions"], told["prediction_type"]) == ("local", "depth", "epsilon")
    assert told["data_content"] == PreparedSet(*config.data).manifest.content
    left = sorted(path.name for path in (config.out / "checkpoints").iterdir())
    assert left == [f"step_{step:08d}.{kind}" for step in (4, 6) for kind in ("safetensors", "state.safetensors")]
    log = read_log(config.out)
    validated = {line["step"]: line["validation_loss"] for line in log if "validation_loss" in line}
    assert list(validated) == [0, 2, 4, 6]
    assert validated.pop(0) > 0, "what training starts from; there is no checkpoint of it"
    assert told["steps"] == str(min(validated, key=lambda step: validated[step]))
    assert [line["samples"] for line in log if "loss" in line] == [4 * step for step in range(1, 7)]
    grids = sorted((config.out / "grids").iterdir())
    assert [path.name for path in grids] == ["00000000.png", "00000003.png", "00000006.png"]
    labelled = Image.open(grids[0])
    assert labelled.size == (5 * 128, LABEL_HEIGHT + 2 * 128)
    for column in range(5):
        strip = labelled.convert("L").crop((128 * column, 0, 128 * column + 128, LABEL_HEIGHT))
        assert strip.getextrema()[0] < 128, f"column {column} has no label"
    assert out.index("step 0: validation loss") < out.index("step 0: drawing a grid of 2 results")
    assert list((config.out / "tensorboard").iterdir())


def test_another_config_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, steps=2)
    train_stage(config)
    with pytest.raises(ConfigError, match=r"seed was 0 and is 1.*choose another out"):
        train_stage(replace(config, seed=1, steps=4))
    write_set(tmp_path / "other", samples=24)
    with pytest.raises(ConfigError, match="trained on other sets"):
        train_stage(replace(config, data=(tmp_path / "other",), steps=4))
    assert train_stage(replace(config, steps=3)).steps == 3


def test_a_second_run_on_one_folder_is_refused(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    with only_run_in(config.out), pytest.raises(FolderInUse, match="in use by process"):
        train_stage(config)


def test_a_loss_that_is_no_number_stops_the_run_with_the_last_good_checkpoint(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, held_out=0)
    broken = Order(23, config.seed, 0).turns(4 * 4, 1)[0].sample  # comes in the fifth step
    config = replace(config, data=(write_set(tmp_path / "broken", broken=broken),))
    with pytest.raises(TrainingStopped, match=r"step 5 has.*step_00000004\.safetensors"):
        train_stage(config)
    good = load_fusers(config.out / "checkpoints" / "step_00000004.safetensors").local_fuser
    assert all(parameter.isfinite().all() for parameter in good.parameters())


def test_what_does_not_fit_together_is_told_before_anything_starts(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    write_set(tmp_path / "edges", condition="canny")
    with pytest.raises(ConfigError, match="holds canny maps, the config wants depth"):
        Trainer(replace(config, data=(tmp_path / "edges",)))
    assert Trainer(replace(config, data=(tmp_path / "edges",), condition="canny")).facts["conditions"] == "canny"
    with pytest.raises(ConfigError, match="predicts eps by its own header, not v"):
        Trainer(replace(config, prediction="v"))
    with pytest.raises(ConfigError, match="does not divide into 1 processes with 3"):
        Trainer(replace(config, micro_batch=3))
    with pytest.raises(ValueError, match="joint needs fusers"):
        tiny_config(tmp_path, stage="joint")
    only_local = train_stage(replace(config, steps=1)).weights
    with pytest.raises(CheckpointError, match="no global one"):
        Trainer(tiny_config(tmp_path, stage="joint", fusers=(only_local,)))
    wide = write_base(tmp_path / "wide.safetensors", replace(TINY, model_channels=64))
    with pytest.raises(CheckpointError, match=r"model_channels 32, the base model 64"):
        Trainer(replace(config, base=wide, fusers=(only_local,)))
    narrow = write_base(tmp_path / "narrow.safetensors", replace(TINY, context_dim=64))
    with pytest.raises(PreparedError, match="96 channels of text states, the base model takes 64"):
        Trainer(replace(config, base=narrow))


def test_the_rate_rises_and_falls(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, steps=8, warm_up=3, schedule="cosine", save_every=8)
    train_stage(config)
    rates = [line["rate"] for line in read_log(config.out) if "rate" in line]
    assert rates[:3] == pytest.approx([1e-3 / 3, 2e-3 / 3, 1e-3])
    assert rates[3] == pytest.approx(1e-3)
    assert all(first > second for first, second in itertools.pairwise(rates[3:]))


def test_the_papers_settings_are_the_defaults() -> None:
    config = TrainConfig("local", (Path("set"),), Path("base"), Path("run"))
    assert {getattr(config, name) for name in DROPS} == {0.1}
    assert (config.learning_rate, config.batch, config.optimizer) == (1e-5, 32, "adamw")
    steps = [replace(config, stage=s, fusers=(Path("f"),)).total_steps(32_000) for s in ("local", "global", "joint")]
    assert steps == [28_000, 24_000, 9_000]


def test_a_run_says_what_it_is_in_its_header(tmp_path: Path) -> None:
    result = train_stage(tiny_config(tmp_path, steps=1))
    told = json.loads(load_fusers(result.weights).metadata["training"])
    assert told["stage"] == "local" and told["drop_text"] == "0.1"


def test_the_plan_measures_and_leaves_nothing(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, steps=None, epochs=3)
    planned = plan(config, steps=1)
    lines = "\n".join(planned.lines())
    assert "5 an epoch at batch 4, 15 in all" in lines
    assert "(measured)" in lines and "an estimate of" in lines
    assert planned.seconds is not None and planned.seconds > 0
    assert planned.peak_bytes is not None and planned.peak_bytes > planned.fixed_bytes
    assert not config.out.exists()


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("train_*.toml")), ids=lambda path: path.stem)
def test_each_recipe_is_a_config(recipe: Path) -> None:
    config = load_config(TrainConfig, recipe)
    assert recipe.stem in {f"train_{config.stage}"} | {f"train_{name}" for name in ("mini", "canny", *ABLATIONS)}
    assert (config.streams == "source") == (recipe.stem.removeprefix("train_") in ABLATIONS)
    assert (config.condition == "canny") == (recipe.stem == "train_canny")


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_differs_from_its_recipe_in_the_streams_alone(name: str) -> None:
    ablation = load_config(TrainConfig, RECIPES / f"train_{name}.toml")
    whole = load_config(TrainConfig, RECIPES / f"train_{ABLATIONS[name]}.toml")
    assert replace(whole, streams="source", out=ablation.out) == ablation
