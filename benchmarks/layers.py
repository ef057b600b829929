"""How well a picture's layers come out, where the truth is known: real cut-outs set over real photographs.

Every photo-like cut-out (`photographs.cut_outs`) is set over a photograph of scenery, over one of all that there are,
with subjects of their own or without, and over one of those in which the salience model by itself finds less than 1
percent of the picture: there the cut-out is all that stands out, and its mask the whole truth. Which one, how large
and where follows from the seed. No sample is left out. What is measured is the pack's own code:

- the salience model's mask, and its largest part alone, against the true one: intersection over union;
- each inpainter's hole, given the true mask: the mean absolute difference to the true background, as a share of
  the same with the object left in. Both are means over the samples; over the whole hole, which is the mask grown
  by the dilation, and over the object alone;
- pixels outside the hole that are not bit-equal to the picture's: none may be;
- with a depth model: the mean absolute difference between the depth maps of the inpainted and the true background
  inside the mask, beside the same of the picture with the object: what the object leaves behind in depth(I_b).
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from cnc_core import perception

from . import photographs
from .host import ROOT
from .models import fetched

SHORTER_SIDE = 512
"""Pixels of each sample's shorter side: what the paper trains at, and what the dilation of 50 is meant for."""

SIZES = (0.4, 0.8)
"""A cut-out's longer side as a share of the sample's shorter one; it is never enlarged beyond its own pixels."""

SUBJECT = 0.01
"""A photograph of which the salience model marks this share or more, with no cut-out on it, has its own subject."""

RESULTS = ROOT / ".cache" / "bench"


@dataclass(frozen=True)
class Sample:
    """A cut-out over a photograph. image and background: (1, H, W, 3); mask: (1, H, W), 1 on the object."""

    cut_out: str
    photograph: str
    image: Tensor
    background: Tensor
    mask: Tensor


def samples(places: list[Path], seed: int, shorter_side: int = SHORTER_SIDE) -> Iterator[Sample]:
    """A sample for every cut-out, over one of these photographs."""
    random = np.random.default_rng(seed)
    for cut_out in photographs.cut_outs():
        place = places[random.integers(len(places))]
        share, across, down = random.uniform(*SIZES), random.random(), random.random()
        background = _opened(place, shorter_side)
        size, stamp = background.size, cut_out.picture
        scale = min(1.0, share * shorter_side / max(stamp.size))
        # Premultiplied, so that what lies under alpha 0 does not bleed into the edge.
        small = stamp.convert("RGBa").resize([max(1, round(side * scale)) for side in stamp.size]).convert("RGBA")
        corner = (round(across * (size[0] - small.width)), round(down * (size[1] - small.height)))
        layer = Image.new("RGBA", size)
        layer.paste(small, corner)
        yield Sample(
            cut_out.name,
            _name(place),
            _tensor(Image.alpha_composite(background.convert("RGBA"), layer).convert("RGB")),
            _tensor(background),
            (torch.from_numpy(np.array(layer.getchannel("A"))) > 127)[None].float(),
        )


def _opened(place: Path, shorter_side: int) -> Image.Image:
    with Image.open(place) as photograph:
        scale = shorter_side / min(photograph.size)
        size = [round(side * scale) for side in photograph.size]
        return photograph.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def _name(place: Path) -> str:
    return place.stem if place.stem != "2560x1600" else place.parents[2].name


def main(options: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="dev.py bench layers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0, help="of the backgrounds and placements; 0")
    parser.add_argument("--size", type=int, default=SHORTER_SIDE, help=f"of the shorter side; {SHORTER_SIDE}")
    parser.add_argument("--models", type=Path, help="a ComfyUI's models; else isnet and migan, fetched into .cache")
    parser.add_argument("--saliency", default="isnet.onnx", help="a salience model by its name there")
    parser.add_argument("--depth", help="a depth model by its name there; without it depth is not measured")
    arguments = parser.parse_args(options)
    models = arguments.models or fetched()
    salience = perception.load_saliency(arguments.saliency, [models / "saliency"])
    names = perception.available("inpainting", [models / "inpaint"])
    inpainters = {name: perception.load_inpainter(name, [models / "inpaint"]) for name in names}
    depth = perception.load_depth(arguments.depth, [models / "depth_estimation"]) if arguments.depth else None

    places = photographs.backgrounds()
    alone = {
        _name(place): perception.refine_mask(perception.estimate(salience, _tensor(_opened(place, arguments.size))))
        for place in places
    }
    without = [place for place in places if _share_of(alone[_name(place)]) < SUBJECT]
    pools = {"scenery": photographs.scenery(), "every photograph": places}
    if without:
        pools["photographs without a subject"] = without
    print(f"{arguments.saliency} finds no subject in {len(without)} of {len(places)} photographs: ", end="")
    print(", ".join(map(_name, without)), flush=True)

    RESULTS.mkdir(parents=True, exist_ok=True)
    everything = {}
    for pool, among in pools.items():
        rows, cells = [], []
        for sample in samples(among, arguments.seed, arguments.size):
            found = perception.estimate(salience, sample.image)
            mask = perception.refine_mask(found)
            largest = perception.refine_mask(found, largest_only=True)
            filled = {name: perception.inpaint(used, sample.image, sample.mask) for name, used in inpainters.items()}
            rows.append(_row(sample, mask, largest, alone[sample.photograph], filled, depth))
            # Of the inpainters the last is shown, a model file where there is one.
            cells.append([sample.image, mask[..., None].expand_as(sample.image), filled[names[-1]]])
            print(f"  {sample.cut_out} over {sample.photograph}: {rows[-1]['iou']:.3f}", flush=True)
        everything[pool] = rows
        name = pool.replace(" ", "_")
        for ending, width in ((".png", 240), ("_small.jpg", 96)):
            sheet(cells, width).save(RESULTS / f"{name}{ending}", quality=75)
    (RESULTS / "layers.json").write_text(json.dumps(everything, indent=1))
    for pool, rows in everything.items():
        print(f"\nover {pool}:")
        report(rows, arguments.saliency, names, arguments.depth)
    print(f"\nevery sample: {RESULTS / 'layers.json'}; pictures beside it")


def _row(
    sample: Sample,
    mask: Tensor,
    largest: Tensor,
    alone: Tensor,
    filled: dict[str, Tensor],
    depth: perception.MapEstimator | None,
) -> dict[str, Any]:
    """One sample's figures. largest: the mask's largest part. alone: what is found without the cut-out."""
    hole, inside = perception.dilate(sample.mask) > 0, sample.mask > 0.5
    found, subject = mask > 0.5, (alone > 0.5) & ~inside
    row: dict[str, Any] = {
        "cut_out": sample.cut_out,
        "photograph": sample.photograph,
        "object_share": inside.float().mean().item(),
        "iou": _iou(found, inside),
        "iou_largest": _iou(largest > 0.5, inside),
        "iou_beside_subject": _iou(found & ~subject, inside),
        "subject_share": _share_of(alone),
        "left_in": _errors(sample.image, sample, hole, inside),
    }
    for name, picture in filled.items():
        row[name] = _errors(picture, sample, hole, inside)
        row[name]["changed_outside"] = int((picture != sample.image).any(dim=-1)[~hole].sum())
    if depth is not None:
        truth = perception.depth_map(depth, sample.background)
        for name, picture in {"left_in": sample.image, **filled}.items():
            residue = (perception.depth_map(depth, picture) - truth).abs()
            row[name]["depth"] = residue[inside].mean().item()
    return row


def _share_of(mask: Tensor) -> float:
    """What it covers of the picture."""
    return (mask > 0.5).float().mean().item()


def _iou(found: Tensor, truth: Tensor) -> float:
    return ((found & truth).sum() / (found | truth).sum()).item()


def _errors(picture: Tensor, sample: Sample, hole: Tensor, inside: Tensor) -> dict[str, Any]:
    difference = (picture - sample.background).abs().mean(dim=-1)
    return {"hole": difference[hole].mean().item(), "object": difference[inside].mean().item()}


def report(rows: list[dict[str, Any]], saliency: str, names: list[str], depth: str | None) -> None:
    """Print counts and the table."""
    photos = len({row["photograph"] for row in rows})
    print(f"{len(rows)} cut-outs of at least {photographs.SMALLEST} pixels over {photos} photographs, none left out")
    for which, what in (("iou", "as found"), ("iou_largest", "its largest part alone")):
        found = [row[which] for row in rows]
        low = sum(value < 0.9 for value in found)
        print(
            f"{saliency}, {what}: IoU mean {statistics.mean(found):.3f}, median {statistics.median(found):.3f}, ",
            end="",
        )
        print(f"{low} below 0.9, least {min(found):.3f}; target: mean at least 0.90")
    beside = [row["iou_beside_subject"] for row in rows]
    subjects = sum(row["subject_share"] >= SUBJECT for row in rows)
    print(f"  the photographs of {subjects} have a subject of their own: it finds one without the cut-out")
    print(
        f"  all, what it finds without the cut-out not counted against it: mean {statistics.mean(beside):.3f}, ", end=""
    )
    print(f"median {statistics.median(beside):.3f}")
    print("error in the hole as a share of the error with the object left in; target: at most 0.60")
    for name in names:
        hole, inside = (_share(rows, name, where) for where in ("hole", "object"))
        changed = sum(row[name]["changed_outside"] for row in rows)
        print(f"  {name:24} {hole:5.2f} of the hole, {inside:5.2f} of the object; {changed} pixels changed outside")
    if depth is None:
        print("depth: not measured, no model named")
        return
    left = statistics.mean(row["left_in"]["depth"] for row in rows)
    print(f"{depth}: mean difference to the true background's depth, inside the mask; object left in {left:.3f}")
    for name in names:
        print(f"  {name:24} {statistics.mean(row[name]['depth'] for row in rows):.3f}")


def _share(rows: list[dict[str, Any]], name: str, where: str) -> float:
    return statistics.mean(row[name][where] for row in rows) / statistics.mean(row["left_in"][where] for row in rows)


def sheet(cells: list[list[Tensor]], width: int, across: int = 4) -> Image.Image:
    """All samples on one sheet: picture, found mask, filled background; `across` samples a line."""
    height = round(width * 0.68)
    lines = -(-len(cells) // across)
    page = Image.new("RGB", (across * (3 * width + 6), lines * (height + 4)), "white")
    for index, pictures in enumerate(cells):
        left, top = index % across * (3 * width + 6), index // across * (height + 4)
        for column, picture in enumerate(pictures):
            pixels = (picture[0].clamp(0, 1) * 255).round().byte().numpy()
            cell = Image.fromarray(pixels)
            cell.thumbnail((width - 2, height))
            page.paste(cell, (left + column * width, top))
        ImageDraw.Draw(page).text((left + 2, top), str(index + 1), fill="white")
    return page


def _tensor(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture, dtype=np.float32))[None] / 255
