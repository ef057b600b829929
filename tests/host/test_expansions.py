"""What of an expansion is computed again, with the host's own cache as it is by default."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devtools.demo import PICTURES
from devtools.server import Server

from .layer_prompts import SHAPES, Prompt, layered, node, sampled


@pytest.fixture(scope="module")
def mini_server(comfy: Path) -> Iterator[Server]:
    """A server with the Mini's pictures. Newer hosts drop, after each node, what nothing has asked for."""
    server = Server(comfy, env={"OMP_NUM_THREADS": "1"})
    for path in PICTURES.glob("*.png"):
        shutil.copy(path, server.input)
    with server as running:
        yield running


def split(**inputs: Any) -> Prompt:
    given = {"saliency": "mini", "inpainter": "telea", "threshold": 0.5, "dilation": 20, **inputs}
    return {
        "cube": node("LoadImage", image="cube.png"),
        "split": node("CnC_SplitLayers", image=["cube", 0], **given),
        "seen": node("PreviewImage", images=["split", 1]),
    }


def composed(**inputs: Any) -> Prompt:
    """Compose over a picture whose object is to be found and taken out of it."""
    prompt = sampled("compose")
    prompt["cone"] = node("LoadImage", image="cone.png")
    prompt["style"] = node("LoadImage", image="fg_style.png")
    prompt["compose"] = node(
        "CnC_Compose",
        model=["mini", 0],
        positive=["positive", 0],
        negative=["negative", 0],
        fusers=["mini", 4],
        clip_vision=["mini", 3],
        foreground=["cone", 0],
        fg_style=["style", 0],
        **{"saliency": "mini", "inpainter": "telea", "depth": "mini"},
        **{"lambda_fg": 1.0, "lambda_bg": 1.0, "strength": 1.0, **inputs},
    )
    return prompt


def parts(server: Server, prompt: Prompt) -> set[str]:
    """What of expansions ran, without its place."""
    run = server.run(prompt)
    assert run.error is None, run.error
    return {key.rpartition(".")[2].lstrip("123456_") for key in run.executed if "." in key} - {"values"}


def test_a_new_threshold_of_split_layers_runs_no_network(mini_server: Server) -> None:
    assert parts(mini_server, split()) == {"salience", "mask", "split"}
    assert parts(mini_server, split(threshold=0.45)) == {"mask", "split"}
    assert parts(mini_server, split(threshold=0.45, dilation=24)) == {"split"}


def test_a_lambda_of_compose_runs_no_network(mini_server: Server) -> None:
    everything = {"salience", "mask", "background", "fg_depth", "bg_depth", "fg_style", "tokens", "guidance", "local"}
    assert parts(mini_server, composed()) == everything
    assert parts(mini_server, composed(lambda_fg=0.5)) == {"guidance"}


def test_another_prompt_runs_no_network_of_compose(mini_server: Server) -> None:
    """Though another node than Compose is the first to run."""
    parts(mini_server, composed())
    prompt = composed()
    prompt["positive"]["inputs"]["text"] = "sand, sunset"
    prompt["latent"]["inputs"]["width"] = 144
    assert parts(mini_server, prompt) == {"local"}


@pytest.mark.parametrize("change", [{"lambda": 0.4}, {"x": 0.1}, {"text": "a green cube"}], ids=str)
def test_a_changed_layer_runs_no_network(mini_server: Server, change: dict[str, Any]) -> None:
    parts(mini_server, layered(SHAPES))
    changed = [(name, {**given, **change} if name == "cube" else given) for name, given in SHAPES]
    again = parts(mini_server, layered(changed))
    assert {"stack", "apply"} & again
    assert not {part for part in again if part.startswith(("salience", "mask", "depth", "exemplar"))}


def test_another_picture_of_a_layer_runs_the_networks_of_that_layer(mini_server: Server) -> None:
    parts(mini_server, layered(SHAPES))
    other = [(name, {**given, "picture": "bg_style.png"} if name == "cube" else given) for name, given in SHAPES]
    again = parts(mini_server, layered(other))
    networks = {part for part in again if part.startswith(("salience", "mask", "depth", "exemplar"))}
    assert networks == {"salience_2", "mask_2", "depth_2"}
