"""How CnC-Mini is trained: scenes in groups, what a sample is asked for, every arm from its first step to a file."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cnc_core import Guidance
from training.mini.cache import SceneCache
from training.mini.command import Chain
from training.mini.dataset import Dataset, empty_tokens
from training.mini.export import write_arm
from training.mini.finished import FinishedMini, facts_of
from training.mini.layered_loss import LayeredDraws, exemplar_rows, layered_conditions
from training.mini.loop import Draw, Plan
from training.mini.model import CONFIG, Conditions, Mini, released_streams
from training.mini.scenes import SEEDS, training_scene
from training.mini.stage_diffusion import ARMS, CONTINUED, FROZEN, Recipe, conditions_of, restore, run_arm
from training.mini.words import rows as token_rows

SCENES = 16
EMPTY = empty_tokens(1)


def encode(picture: torch.Tensor) -> torch.Tensor:
    return picture[:, :1, ::8, ::8].expand(-1, 4, -1, -1)


class Encoder(torch.nn.Module):
    def prepare(self, picture: torch.Tensor) -> torch.Tensor:
        return picture

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        return picture.mean((1, 2, 3))[:, None].expand(-1, 96)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    scenes = SceneCache(tmp_path_factory.mktemp("scenes"), "train", SCENES)
    scenes.fill()
    autoencoder = torch.nn.Module()
    autoencoder.encode = encode  # type: ignore[assignment]
    return Dataset(scenes, autoencoder, Encoder())  # type: ignore[arg-type]


def test_a_run_goes_on_from_finished_files(data: Dataset, root: Path, tmp_path: Path) -> None:
    shipped = root / "models" / "mini"
    finished = FinishedMini.load(shipped)
    plan = Plan("main", 1, 2, 1e-12, 0)
    training, loss = next(run_arm("main", data, tmp_path, planned=lambda _: plan, start=finished))
    training.begin()
    training.advance(loss)
    training.save()
    reached, own = restore("main", tmp_path), finished.local_fuser.state_dict()
    for part in ("unet", "text", "global_fuser"):
        for key, value in getattr(finished, part).state_dict().items():
            torch.testing.assert_close(reached.get_submodule(part).state_dict()[key], value)
    for key, value in released_streams(reached.local_fuser.state_dict(), CONFIG).items():
        torch.testing.assert_close(value, own[key])
    write_arm("main", tmp_path, tmp_path / "files", shipped)
    told = FinishedMini.load(tmp_path / "files", lacking=shipped).facts
    assert json.loads(told["started_from"]) == finished.facts


def test_estimators_go_on_from_finished_files_and_baselines_from_nothing(root: Path, tmp_path: Path) -> None:
    shipped = root / "models" / "mini"
    chain = Chain(tmp_path, tmp_path / "models", scenes=8, share=1e-4, start=shipped)
    chain.run(("ablation", "depth", "export", "export_baselines"))
    old, new = (load_file(folder / "depth.safetensors") for folder in (shipped, tmp_path / "models"))
    assert all((new[name] - old[name]).abs().max() < 1e-3 for name in old)  # one step of warm-up away
    assert any(not torch.equal(new[name], old[name]) for name in old)
    told = facts_of(tmp_path / "models" / "depth.safetensors")
    assert json.loads(told["started_from"]) == facts_of(shipped / "depth.safetensors")
    ablation = tmp_path / "arms" / "ablation" / "unet.safetensors"
    assert "started_from" not in facts_of(ablation)
    trained, base = load_file(ablation), load_file(shipped / "unet.safetensors")
    assert sum(float((trained[name] - base[name]).abs().sum()) for name in base) > 1000  # another model altogether


@pytest.mark.parametrize(("name", "fuser"), [("local_ablation", "local_adapter."), ("global", "global_adapter.")])
def test_an_arm_on_a_frozen_base_learns_one_fuser_anew(name: str, fuser: str, root: Path, tmp_path: Path) -> None:
    shipped = root / "models" / "mini"
    chain = Chain(tmp_path, shipped, scenes=8, share=4e-4)
    chain.run((name, "export_baselines"))
    folder = tmp_path / "arms" / name
    for file in ("unet.safetensors", "text_encoder.safetensors", "fusers.safetensors"):
        old, new = load_file(shipped / file), load_file(folder / file)
        changed = {key for key in old if not torch.equal(old[key], new[key])}
        assert old.keys() == new.keys() and all(key.startswith(fuser) for key in changed)
        assert bool(changed) == (file == "fusers.safetensors")
    assert json.loads(facts_of(folder / "unet.safetensors")["started_from"]) == facts_of(shipped / "unet.safetensors")
    with pytest.raises(ValueError, match="finished base"):
        restore(name, chain.runs)
    if fuser == "local_adapter.":  # the paper's start: a clone of the base's encoder with outputs of zero
        new, base = load_file(folder / "fusers.safetensors"), load_file(shipped / "unet.safetensors")
        clone = "input_blocks.1.0.in_layers.2.weight"
        assert (new[fuser + clone] - base[clone]).abs().max() < 1e-2
        outputs = [value for key, value in new.items() if key.startswith(f"{fuser}zero_convs.")]
        assert outputs and max(value.abs().max() for value in outputs) < 1e-2


def asked(data: Dataset, rows: torch.Tensor, **changed: object) -> tuple[Conditions, torch.Tensor]:
    """The conditions of rows where nothing happens by chance but what is named."""
    nothing = dict.fromkeys(
        ("drop_text", "drop_text_guided", "neutral", "shapes", "deceiving", "drop_depth", "drop_embed", "sibling",
         "full_scene", "masked_depth", "swapped", "backdrop"), 0.0,
    )  # fmt: skip
    recipe = Recipe(Plan("p", 1, len(rows), 1.0, 0), **{**nothing, "fuser": 1.0, "guided": 1.0, **changed})  # type: ignore[arg-type]
    return conditions_of(data, rows, recipe, Draw(recipe.plan, 0), EMPTY)


def test_training_scenes_come_in_groups_of_exchanges_and_siblings() -> None:
    for first in (0, 40):
        scene, exchanged, sibling, both = (training_scene(SEEDS["train"], first + k) for k in range(4))
        assert exchanged.front.material == scene.back.material and exchanged.front.x == scene.back.x
        assert exchanged.front.distance == scene.front.distance
        for name in ("front_material", "back_material", "ground", "backdrop", "light"):
            assert getattr(sibling.attributes, name) == getattr(scene.attributes, name)
        assert (sibling.front.x, sibling.back.x) != (scene.front.x, scene.back.x)
        assert both.front.material == exchanged.front.material


def test_rendering_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = SceneCache(tmp_path / "whole", "train", 8)
    whole.fill()
    stopped = SceneCache(tmp_path / "parts", "train", 8)
    with monkeypatch.context() as patch:
        drawn: list[int] = []

        def stop(cache: SceneCache, index: int) -> object:
            drawn.append(index)
            if index == 4:
                raise KeyboardInterrupt
            return training_scene(cache.seed, index)

        patch.setattr(SceneCache, "scene", stop)
        with pytest.raises(KeyboardInterrupt):
            stopped.fill()
    again = SceneCache(tmp_path / "parts", "train", 8)
    again.fill()
    assert all(torch.equal(again.arrays[name], whole.arrays[name]) for name in whole.arrays)
    with pytest.raises(ValueError, match="holds 8 scenes"):
        SceneCache(tmp_path / "parts", "train", 9)
    (tmp_path / "parts" / "train" / "other_bg_depth.npy").unlink()
    with pytest.raises(ValueError, match="rendered without other_bg_depth"):
        SceneCache(tmp_path / "parts", "train", 8)


def test_scenes_are_encoded_once_for_each_encoder(tmp_path: Path) -> None:
    scenes = SceneCache(tmp_path, "train", 8)
    scenes.fill()
    calls: list[int] = []

    class Counted(torch.nn.Linear):
        def encode(self, picture: torch.Tensor) -> torch.Tensor:
            calls.append(len(picture))
            return self(encode(picture)[..., :4])

    torch.manual_seed(0)
    autoencoder, other = Counted(4, 4), Counted(4, 4)
    first = Dataset(scenes, autoencoder, Encoder())  # type: ignore[arg-type]
    assert sum(calls) == 8
    again = Dataset(scenes, autoencoder, Encoder())  # type: ignore[arg-type]
    assert sum(calls) == 8 and torch.equal(again.latents, first.latents)
    assert torch.equal(again.background_embeds, first.background_embeds)
    anew = Dataset(scenes, other, Encoder())  # type: ignore[arg-type]
    assert sum(calls) == 16 and not torch.equal(anew.latents, first.latents)


def test_nothing_left_out_is_the_scene_itself(data: Dataset) -> None:
    rows = torch.arange(SCENES)
    conditions, share = asked(data, rows)
    assert conditions.fg_depth is not None and conditions.mask is not None and conditions.bg_mask is not None
    assert torch.equal(conditions.fg_depth, data.scenes.read("fg_depth", rows))
    assert torch.equal(conditions.tokens, data.scenes.tokens[:, 0])
    assert torch.equal(conditions.mask, (conditions.fg_depth > 0).float())
    assert torch.equal(conditions.mask + conditions.bg_mask, torch.ones_like(conditions.mask))
    assert share.unique().tolist() == [1.0]


def test_each_change_is_what_it_says(data: Dataset) -> None:
    rows, scenes = torch.arange(SCENES), data.scenes
    names = ("depth", "fg_depth", "bg_depth", "other_bg_depth")
    whole, fg, bg, other_bg = (scenes.read(name, rows) for name in names)
    mask = (fg > 0).float()
    maps = {
        "swapped": (bg[rows ^ 1], fg[rows ^ 1]),
        "full_scene": (whole, bg),
        "masked_depth": (whole * mask, bg),
        "backdrop": (fg, other_bg),
    }
    for change, wanted in maps.items():
        found, _ = asked(data, rows, **{change: 1.0})
        assert torch.equal(found.fg_depth, wanted[0]) and torch.equal(found.bg_depth, wanted[1]), change
    for unseen in ({"guided": 0.0}, {"drop_embed": 1.0}):  # no exemplar tells what is behind
        assert torch.equal(asked(data, rows, backdrop=1.0, **unseen)[0].bg_depth, bg)
    for arm, wanted in {"whole": (whole, whole), "z": (0 * fg, whole), "max": (0 * fg, fg.maximum(bg))}.items():
        found, _ = asked(data, rows, maps=arm)
        assert torch.equal(found.fg_depth, wanted[0]) and torch.equal(found.bg_depth, wanted[1]), arm
    for change, kind in (("neutral", 1), ("shapes", 2)):
        assert torch.equal(asked(data, rows, **{change: 1.0})[0].tokens, scenes.tokens[:, kind])
    assert torch.equal(asked(data, rows, deceiving=1.0)[0].tokens, scenes.tokens[rows ^ 1, 0])
    assert torch.equal(asked(data, rows, drop_text_guided=1.0)[0].tokens, EMPTY.expand(SCENES, -1))
    assert torch.equal(asked(data, rows, sibling=1.0)[0].fg_embed, data.source_embeds[rows ^ 2])
    everywhere, _ = asked(data, rows, masked=False)
    assert everywhere.mask is not None and everywhere.bg_mask is not None
    assert bool((everywhere.mask == 1).all()) and bool((everywhere.bg_mask == 1).all())
    without, _ = asked(data, rows, guided=0.0)
    assert without.mask is not None and without.bg_mask is not None
    assert not without.mask.any() and not without.bg_mask.any()


def test_conditions_are_left_out_at_their_rates(data: Dataset) -> None:
    recipe = Recipe(Plan("p", 1, 64, 1.0, 0), guided=0.0)
    texts, depths, shares = [], [], []
    for step in range(100):
        draw = Draw(recipe.plan, step)
        conditions, share = conditions_of(data, draw.rows(SCENES), recipe, draw, EMPTY)
        texts.append((conditions.tokens == EMPTY).all(1).float().mean())
        assert conditions.bg_depth is not None
        depths.append((conditions.bg_depth == 0).flatten(1).all(1).float().mean())
        shares.append(share.mean())
    assert torch.stack(texts).mean() == pytest.approx(recipe.drop_text, abs=0.02)
    assert torch.stack(depths).mean() == pytest.approx(recipe.drop_depth, abs=0.02)
    assert torch.stack(shares).mean() == pytest.approx(recipe.fuser, abs=0.02)


def test_captions_of_each_kind(data: Dataset) -> None:
    for row in range(SCENES):
        known = data.scenes.scene(row).attributes
        full, neutral, shapes = data.scenes.tokens[row]
        assert torch.equal(full, token_rows([known.caption(row // 4)])[0])
        assert torch.equal(shapes, token_rows([known.shapes_caption()])[0])
        assert known.neutral_caption() == data.scenes.scene(row ^ 1).attributes.neutral_caption()
        assert torch.equal(neutral, token_rows([known.neutral_caption()])[0])


@pytest.mark.slow
def test_all_of_it_runs_from_nothing_to_files_that_load(tmp_path: Path) -> None:
    torch.manual_seed(0)
    chain = Chain(tmp_path, tmp_path / "models", scenes=16, share=1e-4)
    chain.with_baselines()
    chain.run((*FROZEN, "export_baselines"))
    finished = FinishedMini.load(tmp_path / "models")
    widened = released_streams(restore("main", chain.runs).local_fuser.state_dict(), CONFIG)
    for key, value in finished.local_fuser.state_dict().items():
        torch.testing.assert_close(value, widened[key].half().float())
    for name in ARMS:
        if name != "main" and name not in CONTINUED:
            told = json.loads((tmp_path / "arms" / name / "arm.json").read_text())
            assert told["name"] == name and told["mask"] == ("no_mask" not in name)
            FinishedMini.load(tmp_path / "arms" / name, lacking=tmp_path / "models")


def test_scenes_of_one_to_four_solids_train_all_parts_on_from_finished_files(root: Path, tmp_path: Path) -> None:
    shipped = root / "models" / "mini"

    def run(share: float) -> dict[str, torch.Tensor]:
        chain = Chain(tmp_path, shipped, scenes=8, share=share)
        chain.run(("layers", "export_baselines"))
        files = ("unet.safetensors", "text_encoder.safetensors", "fusers.safetensors")
        return {f"{f} {k}": v for f in files for k, v in load_file(tmp_path / "arms" / "layers" / f).items()}

    begun = {f"{f.name} {k}": v for f in shipped.glob("*.safetensors") for k, v in load_file(f).items()}
    trained = run(3 / 20_000)
    changed = {name.split(".")[0] for name, value in trained.items() if not torch.equal(value, begun[name])}
    assert changed == {"unet", "text_encoder", "fusers"}
    assert all((value.float() - begun[name].float()).abs().max() < 1e-2 for name, value in trained.items())
    told = json.loads(facts_of(tmp_path / "arms" / "layers" / "unet.safetensors")["started_from"])
    assert told == facts_of(shipped / "unet.safetensors")
    with pytest.raises(ValueError, match="finished base"):
        restore("layers", tmp_path / "runs")


def test_layered_conditions_act_where_they_are_drawn(root: Path, tmp_path: Path) -> None:
    shipped = root / "models" / "mini"
    chain = Chain(tmp_path, shipped, scenes=8)
    data, plan = chain.data_of("layers"), Plan("p", 1, 16, 1.0, 0)
    assert data.layered is not None
    group, model = data.layered.groups[1], Mini()
    rows = torch.zeros(16, dtype=torch.long)

    def asked(**given: float) -> tuple[Conditions, Guidance, torch.Tensor]:
        nothing = dict.fromkeys([field.name for field in fields(LayeredDraws)], 0.0)
        draws = LayeredDraws(**{**nothing, "fuser": 1.0, **given})
        return layered_conditions(model, data, group, rows, draws, Draw(plan, 0), EMPTY)

    conditions, guidance, fuser = asked(words=1.0)
    assert torch.equal(conditions.tokens, group.captions[rows, 2]) and fuser.min() == 1
    masks = [region.mask for region in guidance.regions if region.mask is not None]
    gates = [region for region in guidance.regions if region.weight_mode == "gate"]
    assert torch.stack(masks).sum() == group.visible[rows].float().div(255).sum()
    assert [g.tokens.shape[1] for g in gates] == group.word_counts[0].tolist()

    _, guidance, _ = asked(looks=1.0)
    shown = torch.stack([region.mask for region in guidance.regions if region.mask is not None]).sum(0)
    assert torch.equal(shown, torch.ones_like(shown))  # each layer's exemplar, and the backdrop's in what is left

    conditions, guidance, _ = asked(words=1.0, drop_text=1.0, caption_order=1.0)
    assert torch.equal(conditions.tokens, EMPTY.expand(16, -1))
    assert all(region.mask is None or not region.mask.any() for region in guidance.regions)
    assert torch.equal(asked(caption_order=1.0)[0].tokens, group.captions[rows, 0])
    conditions = asked(drop_depth=1.0)[0]
    assert conditions.fg_depth is not None and not conditions.fg_depth.any()

    materials = data.scenes.attributes[:, 1]
    found = exemplar_rows(data, materials[:4].repeat(4), Draw(plan, 0))
    assert torch.equal(materials[found], materials[:4].repeat(4))
