"""Workflows with the golden model on a real server: the golden run, what is executed again, what errors say."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from devtools.server import Run, Server

from ..core.golden import golden, made_state, relative_error
from ..perception.models import make_dpt

LATENT_FACTOR = 0.18215
FIRST_SIGMA = 7.371844291687012
"""Of 8 steps of `ddim_uniform`; a latent that stands for x of unit variance is scaled by it."""
MODEL, POSITIVE, NEGATIVE, CLIP_VISION, FG_STYLE, BG_STYLE, FG_DEPTH, BG_DEPTH, MASK, LATENT = (
    ["golden", index] for index in range(10)
)
Prompt = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def golden_server(comfy: Path) -> Iterator[Server]:
    """A server with the golden model's loader beside our pack, and the files of both."""
    server = Server(comfy)
    for name in ("golden_pack", "array_pack"):
        shutil.copytree(Path(__file__).with_name(name), server.base / "custom_nodes" / name)
    save_golden(server.models)
    make_dpt(server.models / "depth_estimation" / "tiny")
    with server as running:
        yield running


def save_golden(models: Path) -> None:
    """Write the golden model with its conditions, and fusers: all, one of the two, and what is none."""
    import cnc_core

    released = golden()
    config = {"config": json.dumps(dataclasses.asdict(released.config))}
    networks = {
        "local_adapter.": cnc_core.LocalFuser(released.config, device="meta"),
        "global_adapter.": cnc_core.GlobalFuser(released.config, device="meta"),
        "model.diffusion_model.": cnc_core.UNet(released.config, device="meta"),
    }
    states = {
        prefix: {prefix + name: tensor for name, tensor in made_state(network, prefix).items()}
        for prefix, network in networks.items()
    }
    local, global_, unet = states.values()
    scene = {name: value for name, value in released.values.items() if name.startswith("in.")}
    # The sampler node adds noise of its own making to a latent, or none: the golden noise comes as a latent.
    scene["latent"] = released["in.x"] * math.sqrt(1 + FIRST_SIGMA**2) / LATENT_FACTOR
    for folder in ("golden", "cnc"):
        (models / folder).mkdir()
    save_file({**unet, **scene}, models / "golden" / "scene.safetensors", metadata=config)
    save_file({**local, **global_}, models / "cnc" / "golden.safetensors", metadata=config)
    save_file(local, models / "cnc" / "local_only.safetensors", metadata=config)
    save_file(global_, models / "cnc" / "global_only.safetensors", metadata=config)
    save_file({"control_model.input_hint_block.0.weight": torch.zeros(1)}, models / "cnc" / "canny.safetensors")


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def sampling(model: list[Any], positive: list[Any], negative: list[Any], steps: int) -> Prompt:
    """Loader, the host's sampler and its latent file."""
    return {
        "golden": node("TestLoadGolden"),
        "sampler": node(
            "KSamplerAdvanced",
            model=model,
            positive=positive,
            negative=negative,
            latent_image=LATENT,
            add_noise="disable",
            noise_seed=0,
            steps=steps,
            cfg=golden().cfg,
            sampler_name="ddim",
            scheduler="ddim_uniform",
            start_at_step=0,
            end_at_step=10000,
            return_with_leftover_noise="disable",
        ),
        "save": node("SaveLatent", samples=["sampler", 0], filename_prefix="latent"),
    }


def composed(steps: int = 2, fusers: str = "golden.safetensors", **guidance: Any) -> Prompt:
    """The whole method out of its parts, as in the golden run but for the inputs of Soft Guidance given."""
    inputs = {
        "lambda_fg": golden().lambda_fg,
        "lambda_bg": golden().lambda_bg,
        "start_percent": 0.0,
        "end_percent": 1.0,
        "mode": "release",
        "resize": "release",
        "apply_to": "both",
        **guidance,
    }
    return {
        **sampling(["guidance", 0], ["local", 0], ["local", 1], steps),
        "fusers": node("CnC_LoadFusers", fusers_name=fusers),
        "tokens": node(
            "CnC_ApplyGlobalFuser", fusers=["fusers", 0], absent="automatic", fg_style=FG_STYLE, bg_style=BG_STYLE
        ),
        "guidance": node("CnC_SoftGuidance", model=MODEL, tokens=["tokens", 0], mask=MASK, **inputs),
        "local": node(
            "CnC_ApplyLocalFuser",
            positive=POSITIVE,
            negative=NEGATIVE,
            fusers=["fusers", 0],
            strength=1.0,
            start_percent=0.0,
            end_percent=1.0,
            fg_depth_scale=1.0,
            bg_depth_scale=1.0,
            fg_depth=FG_DEPTH,
            bg_depth=BG_DEPTH,
        ),
    }


def in_one_node(**inputs: Any) -> Prompt:
    """The whole method in Compose, with mask, background and exemplars given."""
    given = {"lambda_fg": 1.0, "lambda_bg": 1.0, "strength": 1.0, **inputs}
    return {
        **sampling(["compose", 0], ["compose", 1], ["compose", 2], steps=2),
        "fusers": node("CnC_LoadFusers", fusers_name="golden.safetensors"),
        "compose": node(
            "CnC_Compose",
            model=MODEL,
            positive=POSITIVE,
            negative=NEGATIVE,
            fusers=["fusers", 0],
            clip_vision=CLIP_VISION,
            foreground=FG_DEPTH,
            saliency="mini",
            inpainter="telea",
            depth="tiny",
            background=BG_DEPTH,
            fg_style=FG_DEPTH,
            bg_style=BG_DEPTH,
            mask=MASK,
            **given,
        ),
    }


def latent(server: Server, run: Run) -> torch.Tensor:
    """What a finished run saved."""
    assert run.error is None, run.error
    file = run.outputs["save"]["latents"][0]
    return load_file(server.output / file["subfolder"] / file["filename"])["latent_tensor"]


def test_the_golden_run(golden_server: Server) -> None:
    """Through the server's own nodes, from file to latent."""
    x0 = latent(golden_server, golden_server.run(composed(steps=8))) * LATENT_FACTOR
    assert relative_error(x0, golden()["out.ddim_pred_x0"]) < 1e-5


def test_a_lambda_runs_the_patch_and_the_sampler_again_and_nothing_else(golden_server: Server) -> None:
    first = golden_server.run(composed())
    changed = golden_server.run(composed(lambda_bg=1.5))
    assert set(changed.executed) == {"guidance", "sampler", "save"}
    back = golden_server.run(composed())
    before, between, after = (latent(golden_server, run) for run in (first, changed, back))
    assert torch.equal(before, after) and not torch.equal(before, between)


@pytest.mark.parametrize("slider", ["lambda_fg", "lambda_bg"])
def test_a_lambda_on_compose_runs_one_part_of_it_and_the_sampler_again(golden_server: Server, slider: str) -> None:
    first = golden_server.run(in_one_node())
    changed = golden_server.run(in_one_node(**{slider: 0.5}))
    own = {key.rpartition(".")[2] for key in changed.executed if key.startswith("compose.")}
    assert own - {"values"} == {"6_guidance"}  # newer hosts expand Compose into itself
    assert len([key for key in changed.executed if "." not in key]) == 3
    assert {"compose", "sampler", "save"} < set(changed.executed)
    assert not torch.equal(latent(golden_server, first), latent(golden_server, changed))


def test_without_tokens_the_model_passes_through(golden_server: Server) -> None:
    """As the front end sends a workflow whose Apply Global Fuser is bypassed: without node and link."""
    bypassed, plain = composed(), composed()
    del bypassed["tokens"], bypassed["guidance"]["inputs"]["tokens"]
    plain["sampler"]["inputs"]["model"] = plain["guidance"]["inputs"]["model"]
    del plain["tokens"], plain["guidance"]
    without, alone, whole = (latent(golden_server, golden_server.run(one)) for one in (bypassed, plain, composed()))
    assert torch.equal(without, alone) and not torch.equal(without, whole)


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        (composed(fusers="canny.safetensors"), "canny.safetensors seems to be a ControlNet; expected Compose and"),
        (composed(fusers="local_only.safetensors"), "local_only.safetensors has no global fuser"),
        (composed(fusers="global_only.safetensors"), "global_only.safetensors has no local fuser"),
        (composed(fusers="nowhere.safetensors"), "nowhere.safetensors"),
        (composed(apply_to="negative"), "apply_to must be both or positive, got 'negative'"),
        (composed(resize="bicubic"), "resize must be area or release, got 'bicubic'"),
        (composed(lambda_fg=2.5), "bigger than max of 2.0"),
    ],
)
def test_an_error_reaches_the_user_as_text(golden_server: Server, prompt: Prompt, words: str) -> None:
    error = golden_server.run(prompt).error
    assert error is not None and words in error


def test_an_error_in_the_middle_of_sampling_reaches_the_user_as_text(golden_server: Server) -> None:
    prompt = composed()
    prompt["twice"] = node("RepeatImageBatch", image=FG_DEPTH, amount=2)
    prompt["local"]["inputs"]["fg_depth"] = ["twice", 0]
    error = golden_server.run(prompt).error
    assert error is not None and "fg_depth has a batch of 4, the latents one of 2" in error


def test_no_model_outlives_its_last_use(golden_server: Server) -> None:
    """A model made of a model made of a model goes when another workflow takes its place, and waits for no garbage
    collection. (After an error it does: the host keeps the traceback in a frame of the traceback.)"""

    def alive(**options: bool) -> int:
        run = golden_server.run({"count": node("CountAlive", class_name="ModelPatcher", **options)})
        return run.outputs["count"]["alive"][0]  # type: ignore[no-any-return]

    before = alive(collect=True)
    prompt = composed()
    prompt["again"] = node("CnC_SoftGuidance", **{**prompt["guidance"]["inputs"], "model": ["guidance", 0]})
    prompt["sampler"]["inputs"]["model"] = ["again", 0]
    assert golden_server.run(prompt).error is None
    assert alive() == before
    assert "memory leak" not in golden_server.log().lower()
