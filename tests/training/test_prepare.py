"""Preparing sets: the same bytes however it is run, interrupted, and gone on with; what is broken is told."""

import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cnc_core.perception import depth_map, load_depth
from training.files import FolderInUse, only_run_in
from training.mini.finished import FinishedMini
from training.mini.render import render
from training.mini.scenes import SEEDS, draw_scenes
from training.prepare import PrepareConfig, SourceError, TooManyBroken, draw_sheet, prepare
from training.prepare.batches import Draft, Work
from training.prepare.run import _works
from training.prepare.stages import STAGES, Load
from training.prepared import Manifest, PreparedError, PreparedSet

SCENES = PrepareConfig(
    Path(), "scenes", scenes=7, size=64, inpainter="given", depth="given", source_depth=True, shard_size=4, batch_size=3
)  # fmt: skip


def quiet(config: PrepareConfig) -> Manifest:
    return prepare(config, say=lambda _: None)


def files(folder: Path) -> dict[str, bytes]:
    """What a set is made of: all but the record of how it was run."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix not in (".toml", ".lock")}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "set"
    quiet(replace(SCENES, out=folder))
    return folder


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven pictures of different sizes, one in CMYK, with captions."""
    folder = tmp_path_factory.mktemp("photographs")
    layers = render(draw_scenes(SEEDS["test"], range(7)), 96)
    for number, picture in enumerate(layers.image):
        pixels = (picture.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        image = Image.fromarray(pixels).resize((96 + 20 * number, 128))
        image = image.convert("CMYK") if number == 3 else image
        image.save(folder / f"{number}.jpg", quality=95)
        (folder / f"{number}.txt").write_text(f"picture {number}: a thing\n" if number % 2 else "")
    return folder


def photographed(folder: Path, out: Path, **changes: object) -> PrepareConfig:
    config = PrepareConfig(
        out, "folder", data=folder, size=64, mask="mini", crop="random", shard_size=4, batch_size=3, source_depth=True,
        deviation=True,
    )  # fmt: skip
    return replace(config, **changes)  # type: ignore[arg-type]


def test_the_arrays_are_what_the_networks_give_one_by_one(scenes: Path) -> None:
    """Against the Mini's own code and the exact layers, a scene at a time."""
    mini = FinishedMini.load(Path(__file__).parents[2] / "models" / "mini")
    assert mini.image_encoder is not None
    read = PreparedSet(scenes)
    for index in range(len(read)):
        [scene] = draw_scenes(SEEDS["train"], [index])
        layers, sample = render([scene], 64), read[index]
        seen = (layers.image * 255).round() / 255
        for name, expected in (("fg_depth", layers.fg_depth), ("bg_depth", layers.bg_depth), ("mask", layers.mask)):
            torch.testing.assert_close(sample[name], expected[0, 0], atol=0.51 / 65535, rtol=0)
        torch.testing.assert_close(sample["source_depth"], layers.depth[0, 0], atol=0.51 / 65535, rtol=0)
        with torch.no_grad():
            latent = mini.autoencoder.encode(seen)[0]
        torch.testing.assert_close(sample["latents"], latent, atol=1e-4, rtol=1e-3)  # half precision
        torch.testing.assert_close(sample["source_embed"], mini.embed(seen)[0], atol=1e-4, rtol=1e-5)
        behind = (layers.background * 255).round() / 255
        torch.testing.assert_close(sample["background_embed"], mini.embed(behind)[0], atol=1e-4, rtol=1e-5)
        assert read.captions(index)[0] == scene.caption and sample["caption_count"] == 3
        assert (sample["text"][3:] == 0).all() and (sample["text"][:3].abs().amax((1, 2)) > 0).all()


def test_the_foreground_depth_is_that_of_the_cut_out(photographs: Path, tmp_path: Path) -> None:
    quiet(photographed(photographs, tmp_path / "set", limit=1))
    read = PreparedSet(tmp_path / "set")
    pictures, sample = read.pictures(0), read[0]
    source, foreground = (
        torch.from_numpy(np.array(Image.open(io.BytesIO(pictures[f"{name}.png"])))).float()[None] / 255
        for name in ("source", "foreground")
    )
    assert torch.equal(foreground[0], source[0] * sample["mask"][..., None])
    estimator = load_depth("mini")
    for name, picture in (("fg_depth", foreground), ("source_depth", source)):
        torch.testing.assert_close(sample[name], depth_map(estimator, picture)[0], atol=1e-4, rtol=0)


def test_any_number_of_workers_writes_the_same_bytes(photographs: Path, tmp_path: Path) -> None:
    contents = [files_of(photographed(photographs, tmp_path / str(n), workers=n)) for n in (1, 4)]
    assert contents[0] == contents[1]
    assert len(PreparedSet(tmp_path / "1")) > 3


def files_of(config: PrepareConfig) -> dict[str, bytes]:
    quiet(config)
    return files(config.out)


def staged(config: PrepareConfig) -> list[Draft]:
    """All drafts as they are before they are packed, where numbers are not rounded yet."""
    load, *networks, _ = (stage(config) for stage in STAGES)
    assert isinstance(load, Load)
    drafts: list[Draft] = []
    for work in _works(config, load.source.ids(), [0, 1]):
        done: Work = load(work)
        for stage in networks:
            done = stage(done)
        drafts += done.drafts
    return drafts


def test_batches_agree_with_one_by_one(photographs: Path, tmp_path: Path) -> None:
    together = staged(photographed(photographs, tmp_path, batch_size=4))
    alone = staged(photographed(photographs, tmp_path, batch_size=1))
    assert [draft.id for draft in together] == [draft.id for draft in alone] and len(alone) > 3
    for one, other in zip(together, alone, strict=True):
        assert one.captions == other.captions and one.arrays.keys() == other.arrays.keys()
        for name, value in one.arrays.items():
            np.testing.assert_allclose(value, other.arrays[name], atol=1e-5, rtol=1e-5, err_msg=name)


def test_what_is_drawn_follows_from_seed_and_id(photographs: Path, tmp_path: Path) -> None:
    first = quiet(photographed(photographs, tmp_path / "a"))
    again = quiet(photographed(photographs, tmp_path / "b", shard_size=7, batch_size=3))
    other = quiet(photographed(photographs, tmp_path / "c", seed=1))
    assert other.content != first.content
    crops = [PreparedSet(tmp_path / name).batch(range(3), raw=True)["mask"] for name in "ab"]
    assert torch.equal(*crops) and again.samples == first.samples


def test_its_own_tars_are_a_source(scenes: Path, tmp_path: Path) -> None:
    config = replace(SCENES, out=tmp_path / "set", source="webdataset", data=scenes)
    quiet(config)
    first, again = PreparedSet(scenes), PreparedSet(tmp_path / "set")
    one, other = (read.batch(range(7), raw=True) for read in (first, again))
    for name in ("latents", "fg_depth", "bg_depth", "source_depth", "mask", "source_embed", "text"):
        tolerance = 1e-3 if one[name].is_floating_point() else 0
        torch.testing.assert_close(one[name].float(), other[name].float(), atol=tolerance, rtol=0, msg=name)
    assert [first.captions(k) for k in range(7)] == [again.captions(k) for k in range(7)]


def test_a_name_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "odd.tar", "w", format=tarfile.USTAR_FORMAT, encoding="latin-1") as tar:
        tar.addfile(tarfile.TarInfo("caf\u00e9.png"), io.BytesIO())
    config = replace(SCENES, out=tmp_path / "set", source="webdataset", data=tmp_path / "odd.tar")
    manifest = quiet(config)
    [skip] = manifest.shards[0].skipped
    assert (skip.id, skip.reason) == ("odd/caf\\udce9", "name unreadable")


def test_the_tars_are_webdataset(scenes: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    found = list(webdataset.WebDataset(str(scenes / "000000.tar"), shardshuffle=False))
    assert len(found) == 4
    assert {"source.png", "background.png", "mask.png", "fg_depth.png", "bg_depth.png", "json"} <= found[0].keys()


def test_edges_in_place_of_depth(photographs: Path, tmp_path: Path) -> None:
    quiet(photographed(photographs, tmp_path / "set", condition="canny", source_depth=False))
    read = PreparedSet(tmp_path / "set")
    assert read.manifest.condition == "canny" and "depth" not in read.manifest.models
    edges = read.batch(range(len(read)))
    assert set(edges["fg_depth"].unique().tolist()) == {0.0, 1.0}
    outside = torch.nn.functional.max_pool2d(edges["mask"][:, None], 5, 1, 2)[:, 0] == 0
    assert (edges["fg_depth"][outside] == 0).all() and not torch.equal(edges["fg_depth"], edges["bg_depth"])


def test_broken_pictures_are_left_out_counted_and_listed(photographs: Path, tmp_path: Path) -> None:
    folder, masks = tmp_path / "in", tmp_path / "masks"
    folder.mkdir(), masks.mkdir()
    for path in photographs.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    for path in folder.glob("*.jpg"):
        Image.fromarray(np.pad(np.full((40, 40), 255, np.uint8), 40)).resize(Image.open(path).size).save(
            masks / f"{path.stem}.png"
        )
    (folder / "1.jpg").write_bytes((folder / "1.jpg").read_bytes()[:2000])
    (folder / "2.jpg").write_bytes(b"<html>")
    (masks / "4.png").unlink()
    Image.new("L", (100, 10), 255).save(masks / "5.png")
    Image.new("L", (50, 50), 0).resize(Image.open(folder / "6.jpg").size).save(masks / "6.png")
    config = photographed(folder, tmp_path / "set", masks=masks, mask="given")
    manifest = quiet(config)
    assert manifest.skipped == {
        "mask of another shape": 1, "no mask given": 1, "no object": 1, "picture truncated": 1, "picture unreadable": 1,
    }  # fmt: skip
    assert {s.id: s.reason for shard in manifest.shards for s in shard.skipped}["1.jpg"] == "picture truncated"
    read = PreparedSet(tmp_path / "set")
    assert [read.id(index) for index in range(len(read))] == ["0.jpg", "3.jpg"]
    assert read.captions(0) == ("",) and read.captions(1) == ("picture 3: a thing",)
    with pytest.raises(
        TooManyBroken, match=r"4 items are broken, more than max_broken \(3\)(.|\n)*1.jpg: picture trun"
    ):
        quiet(replace(config, out=tmp_path / "other", max_broken=3))


def test_a_mask_over_the_whole_picture_leaves_no_background(photographs: Path, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    for path in photographs.glob("*.jpg"):
        Image.new("L", Image.open(path).size, 255).save(masks / f"{path.stem}.png")
    manifest = quiet(photographed(photographs, tmp_path / "set", masks=masks, mask="given"))
    assert manifest.skipped == {"no background left": 7} and manifest.samples == 0 and manifest.complete


def test_a_finished_set_is_not_made_again_and_another_is_not_mixed_in(scenes: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in scenes.glob("0*")}
    assert quiet(replace(SCENES, out=scenes)).complete
    assert {path: path.stat().st_mtime_ns for path in scenes.glob("0*")} == before
    with pytest.raises(PreparedError, match=r"options\.seed is 0 there, 5 here"):
        quiet(replace(SCENES, out=scenes, seed=5))
    with pytest.raises(PreparedError, match=r"source\.ids_sha256"):
        quiet(replace(SCENES, out=scenes, split="test"))


def test_a_second_run_on_a_folder_is_refused(tmp_path: Path) -> None:
    with only_run_in(tmp_path), pytest.raises(FolderInUse, match=f"in use by process {os.getpid()}"):
        quiet(replace(SCENES, out=tmp_path))


def test_an_unknown_estimator_and_an_empty_source_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is no folder of pictures"):
        quiet(photographed(tmp_path / "none", tmp_path / "set"))
    with pytest.raises(ValueError, match="multiple of 64"):
        replace(SCENES, size=100)
    with pytest.raises(ValueError, match="source coco needs labels, captions"):
        PrepareConfig(tmp_path, "coco", data=tmp_path)


def test_a_sheet_shows_the_triplets(scenes: Path, tmp_path: Path) -> None:
    assert len(draw_sheet(scenes, tmp_path / "sheet.png", count=3, side=64)) == 3
    pixels = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert pixels.shape[1] == 6 * 64
    for column in range(6):
        assert pixels[:64, 64 * column : 64 * column + 64].std() > 5, column


COMMAND = (
    "prepare", "--source", "scenes", "--scenes", "24", "--size", "64", "--inpainter", "given", "--depth", "given",
    "--shard-size", "2", "--batch-size", "2", "--threads", "1",
)  # fmt: skip


def run(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "training", *arguments], cwd=root, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(root: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run(root, *COMMAND, "--out", str(whole)).returncode == 0
    kept: dict[str, int] = {}
    for shards in (2, 5, 9):  # a shard is entered in the manifest after its tar is there
        process = subprocess.Popen(
            [sys.executable, "-m", "training", *COMMAND, "--out", str(killed)], cwd=root, stdout=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 300
        while len(list(killed.glob("*.tar"))) < shards and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        found = {path.name: path.stat().st_mtime_ns for path in killed.glob("*.safetensors")}
        assert process.returncode == -signal.SIGKILL, "it ended before it was killed"
        named = {f"{s.name}.safetensors" for s in PreparedSet(killed, partial=True).manifest.shards}
        assert all(found[name] == when for name, when in kept.items()), "a finished shard was written again"
        kept = {name: found[name] for name in named}
        assert kept
    assert run(root, *COMMAND, "--out", str(killed)).returncode == 0
    assert files(killed) == files(whole)


@pytest.mark.slow
def test_the_commands_tell_what_they_did(root: Path, tmp_path: Path) -> None:
    made = run(root, *COMMAND, "--out", str(tmp_path), "--limit", "3")
    assert made.returncode == 0 and "3 samples in" in made.stdout
    checked = run(root, "check", str(tmp_path))
    assert checked.returncode == 0 and "complete and undamaged" in checked.stdout
    path = tmp_path / "000001.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    checked = run(root, "check", str(tmp_path), "--repair")
    assert checked.returncode == 1 and "000001.safetensors has changed" in checked.stderr
    assert run(root, *COMMAND, "--out", str(tmp_path), "--limit", "3").returncode == 0
    assert run(root, "check", str(tmp_path)).returncode == 0
    assert run(root, "show", str(tmp_path), "--out", str(tmp_path / "s.png")).returncode == 0
    wrong = run(root, *COMMAND, "--out", str(tmp_path / "x"), "--shardsize", "3")
    assert wrong.returncode == 2 and "there is no option --shardsize; did you mean '--shard-size'?" in wrong.stderr
    wrong = run(root, *COMMAND, "--out", str(tmp_path / "x"), "--depth", "midas_of_nobody")
    assert wrong.returncode == 1 and "no depth estimator named 'midas_of_nobody'" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_recipes_are_configs(root: Path) -> None:
    from training.config import load_config

    recipes = sorted((root / "training" / "recipes").glob("prepare_*.toml"))
    assert len(recipes) == 3
    for path in recipes:
        load_config(PrepareConfig, path, {"out": "x"})
