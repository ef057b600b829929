"""Layers on a real server: what two of them give, what is computed again, what hidden ones change, what errors say."""

from __future__ import annotations

import copy
import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from devtools.demo import PICTURES
from devtools.server import Run, Server

from .layer_prompts import SHAPES, Prompt, layered, node, sampled

Layers = list[tuple[str, dict[str, Any]]]
FIVE: Layers = [*SHAPES, ("second ball", {"picture": "fg_style.png", "x": 0.25, "y": 0.2, "scale": 0.5})]


@pytest.fixture(scope="module")
def layers_server(comfy: Path) -> Iterator[Server]:
    """A server with the Mini's pictures, and masks and pictures of other sizes."""
    # The newest host drops by default, after each node that runs, what the prompt has not used yet.
    server = Server(comfy, env={"OMP_NUM_THREADS": "1"}, extra_args=("--cpu", "--cache-classic"))
    shutil.copytree(Path(__file__).with_name("array_pack"), server.base / "custom_nodes" / "array_pack")
    for path in PICTURES.glob("*.png"):
        shutil.copy(path, server.input)
    left = np.zeros((128, 128), np.uint8)
    left[30:100, 20:60] = 255
    for name, mask in (("left", left), ("right", left[:, ::-1]), ("none", 0 * left)):
        Image.fromarray(mask).convert("RGB").save(server.input / f"{name}.png")
    with server as running:
        yield running


def picture(server: Server, prompt: Prompt) -> bytes:
    """The numbers of the picture that a workflow gives, before they are decoded."""
    run = server.run(prompt)
    assert run.error is None, run.error
    file = run.outputs["save"]["latents"][0]
    return load_file(server.output / file["subfolder"] / file["filename"])["latent_tensor"].numpy().tobytes()


def pixels(run: Run, key: str) -> np.ndarray:
    assert run.error is None, run.error
    return np.stack([np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in run.images(key)])


def changed(layers: Layers, name: str, **inputs: Any) -> Layers:
    return [(own, {**given, **inputs} if own == name else given) for own, given in layers]


@pytest.mark.parametrize("masked", [True, False], ids=["mask given", "mask found"])
@pytest.mark.parametrize("styles", ["", "fg", "bg", "fg bg"])
def test_an_object_before_a_backdrop_is_what_compose_gives(layers_server: Server, masked: bool, styles: str) -> None:
    """To the bit."""
    exemplars = {layer: f"{layer}_style.png" for layer in styles.split()}
    meadow = {"picture": "meadow.png", "lambda": 0.8, "exemplar": exemplars.get("bg")}
    cone = {
        "picture": "cone.png",
        "lambda": 1.3,
        "exemplar": exemplars.get("fg"),
        "mask": "left.png" if masked else None,
    }
    stacked = layered([("meadow", meadow), ("cone", cone)])
    composed = sampled("compose")
    for name in ("cone.png", "meadow.png", "fg_style.png", "bg_style.png"):
        composed[name] = node("LoadImage", image=name)
    composed["mask"] = node("LoadImageMask", image="left.png", channel="red")
    composed["compose"] = node(
        "CnC_Compose",
        foreground=["cone.png", 0],
        background=["meadow.png", 0],
        lambda_fg=1.3,
        lambda_bg=0.8,
        inpainter="telea",
        **{name: stacked["compose"]["inputs"][name] for name in ("model", "positive", "negative", "saliency", "depth")},
        **{name: stacked["compose"]["inputs"][name] for name in ("strength", "fusers", "clip_vision")},
        **({"mask": ["mask", 0]} if masked else {}),
        **{f"{layer}_style": [file, 0] for layer, file in exemplars.items()},
    )
    assert picture(layers_server, stacked) == picture(layers_server, composed)


def parts(run: Run) -> set[str]:
    """What of Compose Layers ran, without the place of its expansion, and without itself, which newer hosts expand."""
    assert run.error is None, run.error
    return {key.rpartition(".")[2] for key in run.executed if key.startswith("compose.")} - {"values"}


def test_a_change_runs_what_depends_on_it_and_nothing_else(layers_server: Server) -> None:
    first = layers_server.run(layered(FIVE))
    cheap = ("placed", "look", "apply", "stack")
    found = parts(first)
    assert {"salience_1", "mask_1", "depth_0", "depth_1", "move_1", "words_1", "stack", "apply"} <= found

    def ran(layers: Layers) -> set[str]:
        run = layers_server.run(layered(layers))
        assert {"sampler", "decode", "picture"} <= set(run.executed)
        assert not {"mini", "positive", "negative"} & set(run.executed)
        return parts(run)

    looks = {f"look_{place}" for place in range(2, 5)}
    assert ran(changed(FIVE, "cube", **{"lambda": 0.4})) == {*looks, "apply"}
    assert ran(changed(FIVE, "cube", text_weight=2.0)) == {*looks, "apply"}
    layers_server.run(layered(FIVE))
    other = ran(changed(FIVE, "cube", picture="bg_style.png"))
    assert {part for part in other if not part.startswith(cheap)} == {"salience_2", "mask_2", "depth_2", "move_2"}
    layers_server.run(layered(FIVE))
    moved = ran(changed(FIVE, "cube", x=0.1))
    assert {part for part in moved if not part.startswith(cheap)} == {"move_2"}
    layers_server.run(layered(FIVE))
    reordered = ran(changed(FIVE, "cube", z=3))
    assert all(part.startswith(cheap) for part in reordered) and "stack" in reordered
    reworded = ran(changed(changed(FIVE, "cube", z=3), "cube", text="a green cube"))
    assert {part for part in reworded if not part.startswith(cheap)} == {"words_2"} and "stack" not in reworded


def test_hidden_and_empty_layers_change_nothing(layers_server: Server) -> None:
    plain = picture(layers_server, layered(SHAPES))
    off = ("off", {"picture": "cone.png", "visible": False, "text": "a red cone"})
    empty = ("empty", {"picture": "cone.png", "mask": "none.png", "text": "a red cone", "x": 0.3})
    behind = ("behind", {"picture": "cone.png", "mask": "left.png", "z": -1, "text": "a red cone"})
    over = ("over", {"picture": "cube.png", "mask": "left.png", "text": "a blue cube"})
    for place in (1, 2, 4):
        assert picture(layers_server, layered([*SHAPES[:place], off, *SHAPES[place:]])) == plain
        assert picture(layers_server, layered([*SHAPES[:place], empty, *SHAPES[place:]])) == plain
    covered = picture(layers_server, layered([SHAPES[0], over]))
    assert covered != plain
    with_hidden = [SHAPES[0], ("behind", {**behind[1], "z": 0}), over]
    assert picture(layers_server, layered(with_hidden)) == covered


def test_z_orders_the_stack_as_the_chain_does(layers_server: Server) -> None:
    """By z, and among equals the chain's end is nearest; the flat picture shows it."""
    by_chain = layered([SHAPES[0], SHAPES[3], SHAPES[2], SHAPES[1]])
    heights = {"meadow": -9, "cone": -1, "cube": -2, "ball": -3}
    by_z = layered([(name, {**given, "z": heights[name]}) for name, given in SHAPES])
    for prompt in (by_chain, by_z):
        prompt["flat"] = node("PreviewImage", images=["compose", 3])
        prompt["as images"] = node("MaskToImage", mask=["compose", 4])
        prompt["masks"] = node("PreviewImage", images=["as images", 0])
    chain, sorted_by_z = layers_server.run(by_chain), layers_server.run(by_z)
    for key in ("flat", "masks", "picture"):
        assert np.array_equal(pixels(chain, key), pixels(sorted_by_z, key))
    masks = pixels(chain, "masks")[..., 0] / 255
    assert len(masks) == 4 and np.allclose(masks.sum(0), 1, atol=0.02)
    plain = layered(SHAPES)
    plain["flat"] = by_chain["flat"]
    assert not np.array_equal(pixels(layers_server.run(plain), "flat"), pixels(chain, "flat"))


def test_words_by_layer_act_where_the_layer_shows(layers_server: Server) -> None:
    plain = layered([("meadow", {"picture": "meadow.png"}), ("ball", {"picture": "fg_style.png"})], steps=8)
    runs = {}
    for colour in ("red", "blue"):
        prompt = copy.deepcopy(plain)
        prompt["text"] = node("CLIPTextEncode", text=f"a {colour} sphere", clip=["mini", 1])
        prompt["ball"]["inputs"]["text"] = ["text", 0]
        prompt["as images"] = node("MaskToImage", mask=["compose", 4])
        prompt["masks"] = node("PreviewImage", images=["as images", 0])
        runs[colour] = layers_server.run(prompt)
    inside = pixels(runs["red"], "masks")[0][..., 0] > 128
    red, blue = (pixels(runs[colour], "picture")[0][inside].mean(0) for colour in ("red", "blue"))
    assert red[0] > 1.5 * red[2] and blue[2] > 1.5 * blue[0]


@pytest.mark.parametrize("layer", ["fg", "bg"])
def test_words_by_layer_on_compose(layers_server: Server, layer: str) -> None:
    """With them Compose gives what two layers with the same words give, to the bit."""
    texts = {"fg": "a red cone", "bg": "sand"}
    stacked = layered(
        [
            ("meadow", {"picture": "meadow.png", **({"text": texts["bg"]} if layer == "bg" else {})}),
            ("cone", {"picture": "cone.png", **({"text": texts["fg"]} if layer == "fg" else {})}),
        ]
    )
    prompt = sampled("compose")
    prompt["cone"], prompt["meadow"] = (node("LoadImage", image=f"{name}.png") for name in ("cone", "meadow"))
    prompt["words"] = node("CLIPTextEncode", text=texts[layer], clip=["mini", 1])
    same = {name: value for name, value in stacked["compose"]["inputs"].items() if name != "layers"}
    prompt["compose"] = node(
        "CnC_Compose",
        foreground=["cone", 0],
        background=["meadow", 0],
        lambda_fg=1.0,
        lambda_bg=1.0,
        inpainter="telea",
        **same,
        **{f"{layer}_text": ["words", 0]},
    )
    with_words = picture(layers_server, prompt)
    assert with_words == picture(layers_server, stacked)
    del prompt["compose"]["inputs"][f"{layer}_text"]
    assert with_words != picture(layers_server, prompt)


def test_a_batch_of_pictures_is_a_batch_of_results(layers_server: Server) -> None:
    prompt = layered(SHAPES[:2])
    prompt["other"] = node("LoadImage", image="cube.png")
    prompt["both"] = node("ImageBatch", image1=["picture of cone", 0], image2=["other", 0])
    prompt["cone"]["inputs"]["picture"] = ["both", 0]
    prompt["latent"]["inputs"]["batch_size"] = 2
    prompt["flat"] = node("PreviewImage", images=["compose", 3])
    run = layers_server.run(prompt)
    assert len(pixels(run, "picture")) == 2
    alone = layered(SHAPES[:2])
    alone["flat"] = prompt["flat"]
    assert np.array_equal(pixels(run, "flat")[0], pixels(layers_server.run(alone), "flat")[0])


def test_behind_a_node_that_is_no_layer_values_are_taken(layers_server: Server) -> None:
    """The same picture, computed anew each time."""
    prompt = layered(SHAPES)
    plain = picture(layers_server, prompt)
    prompt["switch"] = node("PassOn", value=["ball", 0])
    prompt["compose"]["inputs"]["layers"] = ["switch", 0]
    for name, _ in SHAPES[1:]:  # a text by value does not say where its words end
        del prompt[name]["inputs"]["text"]
    without_words = layered([(name, {k: v for k, v in given.items() if k != "text"}) for name, given in SHAPES])
    assert picture(layers_server, prompt) == picture(layers_server, without_words) != plain


def test_without_a_backdrop_the_rest_is_left_to_the_prompt(layers_server: Server) -> None:
    """Said once, not again at each change of a weight; the canvas is the largest picture's."""
    cone = {"picture": "cone.png", "mask": "left.png"}
    before = layers_server.log().count("none is the backdrop")
    for strength in (1.0, 0.5, 0.2):
        prompt = layered([("cone", {**cone, "text_weight": strength, "text": "a red cone"})])
        prompt["flat"] = node("PreviewImage", images=["compose", 3])
        flat = pixels(layers_server.run(prompt), "flat")[0]
    assert layers_server.log().count("none is the backdrop") == before + 1
    inside = np.asarray(Image.open(layers_server.input / "left.png"))[..., 0] > 0
    assert flat.shape == (128, 128, 3) and flat[inside].any() and not flat[~inside].any()


def test_two_local_fusers_at_once_are_warned_of(layers_server: Server) -> None:
    prompt = layered(SHAPES[:2])
    depth = {"fg_depth": ["compose", 5], "bg_depth": ["compose", 6]}
    common = {"fusers": ["mini", 4], "strength": 1.0, "fg_depth_scale": 1.0, "bg_depth_scale": 1.0, **depth}
    links = {"positive": ["compose", 1], "negative": ["compose", 2]}
    prompt["again"] = node("CnC_ApplyLocalFuser", **links, **common, start_percent=0.0, end_percent=1.0)
    prompt["sampler"]["inputs"] |= {"positive": ["again", 0], "negative": ["again", 1]}
    before = layers_server.log().count("two Apply Local Fusers")
    assert layers_server.run(prompt).error is None
    assert layers_server.log().count("two Apply Local Fusers") == before + 1
    for name, percents in (("first", (0.0, 0.5)), ("again", (0.5, 1.0))):
        prompt[name] = node(
            "CnC_ApplyLocalFuser", **{**links, **common}, start_percent=percents[0], end_percent=percents[1]
        )
    prompt["first"]["inputs"] |= {"positive": ["positive", 0], "negative": ["negative", 0]}
    prompt["again"]["inputs"] |= {"positive": ["first", 0], "negative": ["first", 1]}
    assert layers_server.run(prompt).error is None
    assert layers_server.log().count("two Apply Local Fusers") == before + 1


def with_exemplar_but_no(name: str) -> Callable[[Prompt], None]:
    def edit(prompt: Prompt) -> None:
        prompt["cube"]["inputs"]["exemplar"] = ["picture of cone", 0]
        del prompt["compose"]["inputs"][name]

    return edit


def unplugged(key: str, name: str) -> Callable[[Prompt], None]:
    def edit(prompt: Prompt) -> None:
        del prompt[key]["inputs"][name]

    return edit


def all_off(prompt: Prompt) -> None:
    for name, _ in SHAPES:
        prompt[name]["inputs"]["visible"] = False


def rewired(key: str, name: str, value: Any, **nodes: dict[str, Any]) -> Callable[[Prompt], None]:
    def edit(prompt: Prompt) -> None:
        prompt.update(nodes)
        prompt[key]["inputs"][name] = value

    return edit


def chain_of(count: int) -> Callable[[Prompt], None]:
    def edit(prompt: Prompt) -> None:
        for index in range(count):
            prompt[f"more {index}"] = copy.deepcopy(prompt["cone"])
            prompt[f"more {index}"]["inputs"]["layers"] = [f"more {index - 1}" if index else "ball", 0]
        prompt["compose"]["inputs"]["layers"] = [f"more {count - 1}", 0]

    return edit


COND = node("CLIPTextEncode", text="a red cone", clip=["mini", 1])
BAD: dict[str, tuple[Callable[[Prompt], None], str]] = {
    "none is visible": (all_off, "no layer is visible: 4 are connected, all switched off"),
    "too many": (chain_of(30), "layer 33 'cone' is one too many: a stack has at most 32 layers"),
    "neither picture nor mask": (
        unplugged("cube", "picture"),
        "layer 2 'cube' has neither picture nor mask, so that it would hide all behind it",
    ),
    "exemplar without fusers": (
        with_exemplar_but_no("fusers"),
        "layer 2 'cube' has an exemplar, which needs fusers: connect Load Fusers to Compose Layers",
    ),
    "exemplar without clip_vision": (
        with_exemplar_but_no("clip_vision"),
        "layer 2 'cube' has an exemplar, which needs clip_vision: connect Load CLIP Vision to Compose Layers",
    ),
    "text with two entries": (
        rewired(
            "cube",
            "text",
            ["two", 0],
            one=COND,
            two=node("ConditioningCombine", conditioning_1=["one", 0], conditioning_2=["one", 0]),
        ),
        "layer 2 'cube': text has 2 entries, and a layer takes one",
    ),
    "text with an area": (
        rewired(
            "cube",
            "text",
            ["area", 0],
            one=COND,
            area=node("ConditioningSetArea", conditioning=["one", 0], width=64, height=64, x=0, y=0, strength=1.0),
        ),
        "layer 2 'cube': text has an area, and a layer has its own place",
    ),
    "text with a mask": (
        rewired(
            "cube",
            "text",
            ["masked", 0],
            one=COND,
            left=node("LoadImageMask", image="left.png", channel="red"),
            masked=node(
                "ConditioningSetMask", conditioning=["one", 0], mask=["left", 0], strength=1.0, set_cond_area="default"
            ),
        ),
        "layer 2 'cube': text has a mask",
    ),
    "NaN": (rewired("cube", "scale", float("nan")), "scale"),
    "a percent beyond 1": (rewired("cube", "end_percent", 1.5), "end_percent"),
}


@pytest.mark.parametrize("mistake", BAD)
def test_a_mistake_names_the_layer(layers_server: Server, mistake: str) -> None:
    edit, words = BAD[mistake]
    prompt = layered(SHAPES)
    edit(prompt)
    error = layers_server.run(prompt).error
    assert error is not None and words in error, error


def test_batches_that_do_not_go_together_are_named(layers_server: Server) -> None:
    prompt = layered(SHAPES)
    for name, amount in (("cone", 2), ("cube", 3)):
        prompt[f"more {name}"] = node("RepeatImageBatch", image=[f"picture of {name}", 0], amount=amount)
        prompt[name]["inputs"]["picture"] = [f"more {name}", 0]
    error = layers_server.run(prompt).error
    assert (
        error is not None
        and "picture of layer 3 'cone' is a batch of 2 and picture of layer 2 'cube' one of 3" in error
    )
