"""A server that works for hours: 500 queued prompts, some interrupted, models unloaded now and then.

Each picture is that of a fresh server to the bit, and neither memory nor the temporary folder grows.
"""

from __future__ import annotations

import asyncio
import io
import random
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import psutil
import pytest
from PIL import Image

from devtools.demo import PICTURES
from devtools.server import Run, Server
from devtools.workflow import Workflow

PROMPTS, BLOCK = 500, 20
INTERRUPTED = 10
"""Every one of so many prompts is interrupted."""
FREED = 60
"""After so many the models are unloaded and the caches dropped."""
ENDS = ("execution_success", "execution_interrupted", "execution_error")
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
"""Sums of floats depend on how many threads share them."""

Prompt = dict[str, dict[str, Any]]


def started(comfy: Path) -> Server:
    """A server with the Mini's pictures, not yet running."""
    server = Server(comfy, env=ONE_THREAD)
    for picture in PICTURES.glob("*.png"):
        shutil.copy(picture, server.input)
    return server


class Scene:
    """A workflow that grows: a picture of the Mini's at a size, sampled in two steps."""

    def __init__(self, object_info: dict[str, Any], side: int = 128, batch: int = 1) -> None:
        self.flow = Workflow(object_info)
        self.add = self.flow.add
        self.mini = self.add("CnC_LoadMini")
        clip = self.mini.out("clip")
        self.positive = self.add("CLIPTextEncode", clip=clip, text="red ball in front of green cube on sand").out()
        self.negative = self.add("CLIPTextEncode", clip=clip, text="").out()
        self.latent = self.add("EmptyLatentImage", width=side, height=side, batch_size=batch).out()

    def picture(self, name: str) -> list[Any]:
        return self.add("LoadImage", image=f"{name}.png").out()

    def compose(self, foreground: list[Any], **inputs: Any) -> list[list[Any]]:
        """Model and conditioning of the whole method in one node."""
        given = {name: self.mini.out(name) for name in ("model", "fusers", "clip_vision")}
        prompts = {"positive": self.positive, "negative": self.negative}
        made = self.add(
            "CnC_Compose", **given, **prompts, foreground=foreground, saliency="mini", depth="mini", **inputs
        )
        return [made.out(name) for name in ("model", "positive", "negative")]

    def sampled(self, model: list[Any], positive: list[Any], negative: list[Any], **options: Any) -> list[Any]:
        given = {"latent_image": self.latent, "steps": 2, "cfg": 1.5, "sampler_name": "ddim", "seed": 5, **options}
        return self.add("KSampler", model=model, positive=positive, negative=negative, **given).out()

    def saved(self, latent: list[Any]) -> Prompt:
        decoded = self.add("VAEDecode", samples=latent, vae=self.mini.out("vae"))
        self.add("SaveImage", images=decoded.out(), filename_prefix="endurance")
        return self.flow.prompt


def workflows(info: dict[str, Any]) -> Iterator[Prompt]:
    """Ten that differ in pictures, lambdas, sizes and nodes."""
    for side, foreground, background, fg, bg in (
        (128, "cone", "cube", 1.0, 1.0),
        (128, "cube", "cone", 0.5, 1.5),
        (192, "cone", "cube", 2.0, 0.0),
        (192, "cube", None, 1.0, 0.3),
    ):
        scene = Scene(info, side)
        inputs: dict[str, Any] = {"lambda_fg": fg, "lambda_bg": bg, "inpainter": "telea"}
        inputs |= {"fg_style": scene.picture("fg_style"), "bg_style": scene.picture("bg_style")}
        if background:
            inputs["background"] = scene.picture(background)
        yield scene.saved(scene.sampled(*scene.compose(scene.picture(foreground), **inputs)))

    scene = Scene(info, batch=2)
    yield scene.saved(scene.sampled(*scene.compose(scene.picture("cube"), fg_style=scene.picture("bg_style"))))

    scene = Scene(info)  # a second pass at a larger size
    composed = scene.compose(scene.picture("cone"), background=scene.picture("cube"))
    first = scene.sampled(*composed)
    larger = scene.add("LatentUpscale", samples=first, width=192, height=192, upscale_method="bilinear").out()
    yield scene.saved(scene.sampled(*composed, latent_image=larger, denoise=0.6))

    scene = Scene(info)  # a cut-out placed on another picture
    cone = scene.picture("cone")
    mask = scene.add("CnC_SalientMask", image=cone, estimator="mini").out()
    placed = scene.add(
        "CnC_PlaceLayer", background=scene.picture("cube"), foreground=cone, mask=mask, x=0.3, scale=0.7, rotation=30.0
    )
    yield scene.saved(scene.sampled(*scene.compose(placed.out("image"), mask=placed.out("mask"))))

    scene = Scene(info)  # layers split, depth alone
    split = scene.add("CnC_SplitLayers", image=scene.picture("cube"), saliency="mini", inpainter="navier-stokes")
    maps = {
        name: scene.add("CnC_DepthMap", image=split.out(layer), estimator="mini", version="v1").out()
        for name, layer in (("fg_depth", "foreground"), ("bg_depth", "background"))
    }
    given = {"positive": scene.positive, "negative": scene.negative, "fusers": scene.mini.out("fusers")}
    local = scene.add("CnC_ApplyLocalFuser", **given, strength=0.8, end_percent=0.7, **maps)
    yield scene.saved(scene.sampled(scene.mini.out("model"), local.out(0), local.out(1)))

    for mode, side in (("paper", 128), ("release", 192)):  # exemplars alone
        scene = Scene(info, side)
        style = {"clip_vision": scene.mini.out("clip_vision"), "image": scene.picture("fg_style"), "crop": "center"}
        encoded = scene.add("CLIPVisionEncode", **style).out()
        tokens = scene.add("CnC_ApplyGlobalFuser", fusers=scene.mini.out("fusers"), fg_style=encoded).out()
        mask = scene.add("CnC_SalienceMap", image=scene.picture("cone"), estimator="mini").out()
        refined = scene.add("CnC_RefineMask", mask=mask, grow=3, feather=8).out()
        guided = scene.add(
            "CnC_SoftGuidance", model=scene.mini.out("model"), tokens=tokens, mask=refined, mode=mode, lambda_bg=0.4
        )
        yield scene.saved(scene.sampled(guided.out(), scene.positive, scene.negative))


def pixels(run: Run, prompt: Prompt) -> bytes:
    """What a finished workflow saved, by its last node."""
    return b"".join(np.asarray(Image.open(io.BytesIO(data))).tobytes() for data in run.images(list(prompt)[-1]))


def from_a_fresh_server(comfy: Path, index: int) -> bytes:
    """What the workflow gives as the first that a server runs."""
    with started(comfy) as server:
        prompt = list(workflows(server.object_info()))[index]
        run = server.run(prompt)
        assert run.error is None, run.error
        return pixels(run, prompt)


async def run_block(server: Server, prompts: list[Prompt], delays: dict[int, float]) -> list[tuple[str, Run]]:
    """Queue the prompts at once; interrupt those in ``delays`` so many seconds after they began. How each ended."""
    async with aiohttp.ClientSession(server.url) as session, session.ws_connect("/ws?clientId=endurance") as messages:
        ids = []
        for prompt in prompts:
            async with session.post("/prompt", json={"prompt": prompt, "client_id": "endurance"}) as reply:
                ids.append((await reply.json())["prompt_id"])
        ends: dict[str, str] = {}
        errors: dict[str, str] = {}
        waiting: list[asyncio.Task[None]] = []

        async def interrupt(prompt_id: str, delay: float) -> None:
            await asyncio.sleep(delay)
            (await session.post("/interrupt", json={"prompt_id": prompt_id})).close()

        while len(ends) < len(prompts):
            message = await messages.receive(timeout=120)
            if message.type is not aiohttp.WSMsgType.TEXT:
                continue
            packet = message.json()
            kind, data = packet["type"], packet["data"]
            if kind == "execution_start" and (delay := delays.get(ids.index(data["prompt_id"]))) is not None:
                waiting.append(asyncio.create_task(interrupt(data["prompt_id"], delay)))
            elif kind in ENDS:
                ends[data["prompt_id"]] = kind
                errors[data["prompt_id"]] = data.get("exception_message", "")
        await asyncio.gather(*waiting)
        runs = []
        for prompt_id in ids:
            while True:  # the history is written a moment after the end is told
                async with session.get(f"/history/{prompt_id}") as reply:
                    history = await reply.json()
                if prompt_id in history:
                    break
            outputs = history[prompt_id]["outputs"]
            runs.append((ends[prompt_id], Run(server.url, outputs=outputs, error=errors[prompt_id] or None)))
    return runs


def resident(server: Server) -> float:
    """Megabytes."""
    return psutil.Process(server.pid).memory_info().rss / 2**20


@pytest.mark.slow
def test_500_prompts(comfy: Path) -> None:
    seed = random.SystemRandom().randrange(2**31)
    print(f"seed {seed}")
    draw = random.Random(seed)
    with started(comfy) as server:
        prompts = list(workflows(server.object_info()))
        with ThreadPoolExecutor(2) as pool:
            expected = list(pool.map(lambda index: from_a_fresh_server(comfy, index), range(len(prompts))))
        assert len(prompts) == len(set(expected)) == 10
        memory, ended, lengths = [], dict.fromkeys(ENDS, 0), [1.0]
        for first in range(0, PROMPTS, BLOCK):
            order: list[int] = []
            while len(order) < BLOCK:
                order += draw.sample(range(len(prompts)), len(prompts))
            stopped = [index for index in range(BLOCK) if (first + index) % INTERRUPTED == INTERRUPTED - 1]
            delays = {index: draw.uniform(0, lengths[-1]) for index in stopped}
            loop = asyncio.new_event_loop()
            began = loop.time()
            runs = loop.run_until_complete(run_block(server, [prompts[index] for index in order], delays))
            lengths.append((loop.time() - began) / BLOCK)
            loop.close()
            for place, (index, (end, run)) in enumerate(zip(order, runs, strict=True)):
                ended[end] += 1
                assert end == "execution_success" or place in delays, (first + place, end, run.error)
                if end == "execution_success":
                    assert pixels(run, prompts[index]) == expected[index], f"prompt {first + place}, workflow {index}"
            server.clear_history()  # which grows by 2 MB each hundred: the host's own, of whatever nodes
            if (first + BLOCK) % FREED == 0:
                server.free()
            if (first + BLOCK) % 100 == 0:
                memory.append(resident(server))
                print(f"{first + BLOCK} prompts, {memory[-1]:.0f} MB, {lengths[-1]:.2f} s each, {ended}")
        kept = [path.name for path in (server.base / "temp").rglob("*") if path.is_file()]
        assert "memory leak" not in server.log().lower()
    assert ended["execution_interrupted"] >= PROMPTS // INTERRUPTED // 4 and not ended["execution_error"]
    assert memory[-1] < 1.02 * memory[0], memory
    assert all(name.startswith("ComfyUI_temp_") and name.endswith(".png") for name in kept), kept
