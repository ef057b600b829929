"""What the estimators cost: a batch against one by one, and a large photograph's memory on a real server.

- time: 8 photographs given to each estimator as the nodes give a batch, in the pieces that suit the device, and
  one by one, in turn in the same process;
- loading: two requests for an estimator have to give the same network;
- memory: the peak resident memory of a server of its own for each estimator, before and after a workflow with a
  photograph of 4000 x 3000 pixels: the picture and its preview, the model and its work, all together.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from devtools.server import Server
from devtools.workflow import Workflow

from . import photographs
from .host import ROOT, enter
from .memory import peak
from .models import fetched

BATCH = 8
SIZE = (768, 512)
LARGE = (4000, 3000)
FOLDERS = {"depth": "depth_estimation", "saliency": "saliency", "inpainting": "inpaint"}
NODES = {"depth": "CnC_DepthMap", "saliency": "CnC_SalienceMap", "inpainting": "CnC_InpaintBackground"}
CHOICES = {"depth": "estimator", "saliency": "estimator", "inpainting": "inpainter"}
ALONE = "Load Image and Preview Image alone"


def main(options: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="dev.py bench perception", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="how often each is timed, in turn; 3")
    parser.add_argument("--models", type=Path, help="a ComfyUI's models; else isnet and migan, fetched into .cache")
    parser.add_argument("--only", choices=["time", "memory"], help="measure one of the two")
    arguments = parser.parse_args(options)
    models = (arguments.models or fetched()).resolve()
    if arguments.only != "memory":
        report_time(models, arguments.rounds)
    if arguments.only != "time":
        report_memory(models)


def report_time(models: Path, rounds: int) -> None:
    """Print a line for each estimator."""
    pack = enter()
    import folder_paths

    for folder in FOLDERS.values():
        folder_paths.add_model_folder_path(folder, str(models / folder))
    hosting, perception = pack.part("nodes.host.perception"), pack.part("cnc_core.perception")
    loaders = {
        "depth": hosting.depth_estimator,
        "saliency": hosting.saliency_estimator,
        "inpainting": hosting.inpainter,
    }
    images, masks = pictures(), discs()
    print(f"{BATCH} photographs of {SIZE[0]} x {SIZE[1]} in a batch against one by one, median of {rounds} rounds")
    for kind, load in loaders.items():
        for name in hosting.estimator_names(kind):
            hosted = load(name)
            use = _use(perception, kind, hosted)
            shared = hosted.patcher is None or load(name) is hosted
            channels = perception.channels_read(hosted.estimator)
            read = images if channels == 3 else torch.cat((images, masks[..., None]), dim=-1)
            ratios = [_in_turn(use, hosting.pieces, read, masks) for _ in range(rounds + 1)][1:]
            together, single = (statistics.median(times) for times in zip(*ratios, strict=True))
            ratio = statistics.median(batch / alone for batch, alone in ratios)
            print(f"  {kind:10} {name:26} {together:7.3f} s in a batch, {single:7.3f} s alone, ", end="")
            print(f"{ratio:.2f} of it; {'loaded once' if shared else 'LOADED TWICE'}", flush=True)
    print("  target: at most 1.05")


def _use(perception: Any, kind: str, hosted: Any) -> Callable[[Tensor, Tensor], Tensor]:
    run = hosted.run if hosted.patcher is not None else None
    if kind == "inpainting":
        return lambda images, masks: perception.inpaint(hosted.estimator, images, masks, run=run)
    if kind == "depth":
        return lambda images, masks: perception.depth_map(hosted.estimator, images, run=run)
    return lambda images, masks: perception.estimate(hosted.estimator, images, run=run)


def _in_turn(
    use: Callable[[Tensor, Tensor], Tensor], pieces: Callable[[int], Iterable[slice]], images: Tensor, masks: Tensor
) -> tuple[float, float]:
    """Seconds a picture, in a batch and alone."""
    with torch.inference_mode():
        began = time.perf_counter()
        torch.cat([use(images[piece], masks[piece]) for piece in pieces(BATCH)])
        between = time.perf_counter()
        for index in range(BATCH):
            torch.cat([use(images[index : index + 1][piece], masks[index : index + 1][piece]) for piece in pieces(1)])
        return (between - began) / BATCH, (time.perf_counter() - between) / BATCH


def pictures() -> Tensor:
    """(B, H, W, 3): the first photographs, their middles."""
    cut = []
    for path in photographs.backgrounds()[:BATCH]:
        with Image.open(path) as picture:
            scale = max(wanted / side for wanted, side in zip(SIZE, picture.size, strict=True))
            small = picture.convert("RGB").resize([round(side * scale) for side in picture.size])
            left, top = ((side - wanted) // 2 for side, wanted in zip(small.size, SIZE, strict=True))
            cut.append(np.asarray(small.crop((left, top, left + SIZE[0], top + SIZE[1])), dtype=np.float32) / 255)
    return torch.from_numpy(np.stack(cut))


def discs() -> Tensor:
    """(B, H, W): a disc in the middle."""
    y, x = np.mgrid[: SIZE[1], : SIZE[0]]
    disc = ((y - SIZE[1] / 2) ** 2 + (x - SIZE[0] / 2) ** 2 < 100**2).astype(np.float32)
    return torch.from_numpy(disc).expand(BATCH, -1, -1)


def report_memory(models: Path) -> None:
    """Print a line for each estimator, each on a fresh server."""
    comfy = Path(os.environ.get("CNC_COMFY") or ROOT / ".host" / "ComfyUI")
    print(f"what a photograph of {LARGE[0]} x {LARGE[1]} adds to the idle server's peak resident memory")
    for kind, name in [(ALONE, ""), *_on_the_server(comfy, models)]:
        with _server(comfy, models) as server:
            _write_large(server.input)
            idle = peak(server.pid)
            flow = Workflow(server.object_info())
            image = flow.add("LoadImage", image="photograph.png").out()
            if kind == ALONE:
                flow.add("PreviewImage", images=image)
            else:
                inputs: dict[str, Any] = {"image": image, CHOICES[kind]: name}
                if kind == "inpainting":
                    inputs["mask"] = flow.add("LoadImageMask", image="mask.png", channel="red").out()
                if kind == "depth":
                    inputs["version"] = "v1"
                made = flow.add(NODES[kind], **inputs).out()
                shown = flow.add("MaskToImage", mask=made).out() if kind == "saliency" else made
                flow.add("PreviewImage", images=shown)
            done = server.run(flow.prompt)
            added = (peak(server.pid) - idle) / 1e9
            told = f"failed: {done.error}" if done.error else f"{added:5.2f} GB ({done.seconds:.0f} s)"
            print(f"  {kind:10} {name:26} {told}", flush=True)
    print("  target: at most 3 GB")


def _on_the_server(comfy: Path, models: Path) -> Iterator[tuple[str, str]]:
    """Each estimator that the nodes offer, by kind and name."""
    with _server(comfy, models) as server:
        info = server.object_info()
    for kind, node in NODES.items():
        spec = info[node]["input"]["required"][CHOICES[kind]]
        options = spec[0] if isinstance(spec[0], list) else spec[1]["options"]
        yield from ((kind, name) for name in options if name != "alpha")  # it wants a picture with an alpha channel


def _server(comfy: Path, models: Path) -> Server:
    server = Server(comfy, extra_args=[] if torch.cuda.is_available() else ["--cpu"])
    server.link_models(models, *FOLDERS.values())
    return server


def _write_large(folder: Path) -> None:
    """A photograph and a mask of LARGE pixels."""
    with Image.open(photographs.backgrounds()[0]) as picture:
        picture.convert("RGB").resize(LARGE).save(folder / "photograph.png", compress_level=1)
    mask = Image.new("RGB", LARGE)
    ImageDraw.Draw(mask).ellipse((1500, 1000, 2500, 2000), fill="white")
    mask.save(folder / "mask.png", compress_level=1)
