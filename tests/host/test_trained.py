"""From pictures to a picture: sets are prepared, all three stages are trained, and ComfyUI draws with the result.

Photographs by functions, as a notebook calls them; scenes by the command line. A few steps on CnC-Mini's base model:
that the results are of use is not what this shows.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import training
from cnc_core import load_fusers
from devtools import demo
from devtools.server import Server
from devtools.workflow import Workflow
from training.prepare import PrepareConfig
from training.train import TrainConfig

PHOTOGRAPHS = ("astronaut.png", "camera.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg")
STEPS, BATCH = 3, 2
LEARNING_RATE = 3e-3
"""High, so that a few steps are seen in a picture."""


def from_photographs(folder: Path, root: Path) -> Path:
    """The joint stage's weights; each stage is a function's call."""
    skimage = pytest.importorskip("skimage.data", reason="scikit-image, of the dev extra, is not installed")
    pictures = folder / "pictures"
    pictures.mkdir(parents=True)
    for name in PHOTOGRAPHS:
        shutil.copy(Path(skimage.__file__).parent / name, pictures)
        (pictures / name).with_suffix(".txt").write_text(f"a photograph: {Path(name).stem}\n", encoding="utf-8")
    prepared = PrepareConfig(folder / "set", "folder", data=pictures, size=128, mask="mini", shard_size=4)
    assert training.prepare.prepare(prepared).samples == len(PHOTOGRAPHS)

    def trained(stage: str, *fusers: Path) -> Path:
        config = TrainConfig(
            stage, (folder / "set",), root / "models" / "mini" / "unet.safetensors", folder / stage, fusers,
            steps=STEPS, batch=BATCH, learning_rate=LEARNING_RATE, held_out=1, grid_steps=2, device="cpu",
            tensorboard=False,
        )  # fmt: skip
        return training.train.train_stage(config).weights

    both = folder / "both.safetensors"
    training.weights.merge_fusers(trained("local"), trained("global"), both)
    return trained("joint", both)


def from_scenes(folder: Path, root: Path) -> Path:
    """The same by the commands that the documentation names."""

    def command(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "training", *arguments], cwd=root, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    recipes = root / "training" / "recipes"
    scenes = ("--config", str(recipes / "prepare_scenes.toml"), "--scenes", "8", "--out", str(folder / "set"))
    assert "8 samples" in command("prepare", *scenes)
    assert "complete and undamaged" in command("check", str(folder / "set"))
    few = (
        "--data", str(folder / "set"), "--steps", str(STEPS), "--batch", str(BATCH), "--held-out", "2",
        "--device", "cpu", "--learning-rate", str(LEARNING_RATE), "--no-tensorboard", "--grid-steps", "2", "--ema", "0",
    )  # fmt: skip
    recipe = ("--config", str(recipes / "train_mini.toml"))
    said = ""
    for stage in ("local", "global", "joint"):
        fusers = ("--fusers", *(str(folder / part / "best.safetensors") for part in ("local", "global")))
        start = fusers if stage == "joint" else ()
        said = command("train", *recipe, *few, "--stage", stage, "--out", str(folder / stage), *start)
    finished = folder / "joint" / "best.safetensors"
    assert f"finished after {STEPS} steps: {finished}" in said
    assert "copy that file into models/cnc" in said and "Load Fusers" in said
    assert (folder / "joint" / "grids" / "00000000.png").is_file(), "sample images appear from step 0"
    return finished


@pytest.mark.slow
@pytest.mark.parametrize("train", [from_photographs, from_scenes], ids=["photographs", "scenes"])
def test_from_pictures_to_a_picture(server: Server, root: Path, tmp_path: Path, train: object) -> None:
    weights = train(tmp_path, root)  # type: ignore[operator]
    fusers = load_fusers(weights)
    assert fusers.local_fuser is not None and fusers.global_fuser is not None
    assert (fusers.metadata["stage"], fusers.metadata["conditions"]) == ("joint", "depth")
    (server.models / "cnc").mkdir(exist_ok=True)
    name = f"{train.__name__}.safetensors"  # type: ignore[attr-defined]
    shutil.copy(weights, server.models / "cnc" / name)
    for picture in ("cone", "cube"):
        shutil.copy(demo.PICTURES / f"{picture}.png", server.input)
    results = {}
    for strength, lambdas in ((1.0, 1.0), (0.0, 1.0), (1.0, 0.0)):
        flow, shown = composed(server, name, strength, lambdas)
        done = server.run(flow.prompt)
        assert done.error is None
        results[strength, lambdas] = np.asarray(Image.open(io.BytesIO(done.images(shown)[0])).convert("RGB"), float)
    first = results.pop((1.0, 1.0))
    assert first.shape == (demo.SIZE, demo.SIZE, 3) and first.std() > 1
    assert all(not np.array_equal(first, other) for other in results.values()), "each trained fuser acts"


def composed(server: Server, fusers: str, strength: float, lambdas: float) -> tuple[Workflow, str]:
    """Two pictures composed with these fusers on the Mini, and the id of the node that shows the result."""
    flow = Workflow(server.object_info())
    mini, loaded = flow.add("CnC_LoadMini"), flow.add("CnC_LoadFusers", fusers_name=fusers)
    prompts = {
        name: flow.add("CLIPTextEncode", clip=mini.out("clip"), text=text).out()
        for name, text in (("positive", "yellow cone in front of blue cube"), ("negative", ""))
    }
    pictures = {
        layer: flow.add("LoadImage", image=f"{name}.png").out()
        for layer, name in (("foreground", "cone"), ("background", "cube"), ("fg_style", "cube"), ("bg_style", "cone"))
    }
    done = flow.add(
        "CnC_Compose", model=mini.out("model"), fusers=loaded.out(), clip_vision=mini.out("clip_vision"),
        saliency="mini", depth="mini", strength=strength, lambda_fg=lambdas, lambda_bg=lambdas, **prompts, **pictures,
    )  # fmt: skip
    latent = flow.add("EmptyLatentImage", width=demo.SIZE, height=demo.SIZE, batch_size=1)
    sampled = flow.add(
        "KSampler", **{name: done.out(name) for name in ("model", "positive", "negative")}, latent_image=latent.out(),
        seed=1, steps=3, cfg=1.5, sampler_name="ddim", scheduler="ddim_uniform", denoise=1.0,
    )  # fmt: skip
    result = flow.add("VAEDecode", samples=sampled.out(), vae=mini.out("vae"))
    return flow, flow.add("PreviewImage", images=result.out()).id
