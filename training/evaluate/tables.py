r"""`python -m training evaluate tables`: the paper's Tables 1 to 4 for any folders of pictures.

    python -m training evaluate tables --images ours=runs/ours t2i=elsewhere/t2i_adapter --reference coco/val \
        --captions coco/captions.txt --clip models/clip-vit-large-patch14 --weights weights

The folders may come from anywhere: `evaluate depth --pictures N` and `evaluate generate` write such ones, and other
models' results stand in the same table. Pictures are matched by their names without the ending.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from training.config import ConfigError, from_arguments, option
from training.config import add_arguments as add_options
from training.files import file_hash

from . import pictures
from .folder import Part, Row, RunFolder, markdown, run_measure
from .pictures import Pictures
from .settings import RUNS
from .statistics import estimate

Metric = Literal["fid", "is", "clip", "lpips", "ssim", "depth", "regions"]
TITLES: dict[Metric, str] = {
    "fid": "FID (less is better)",
    "is": "Inception Score (more), deviation over splits",
    "clip": "CLIPScore (more) [95 %]",
    "lpips": "LPIPS (less) [95 %]",
    "ssim": "SSIM (more) [95 %]",
    "depth": "depth MAE (less) [95 %]",
    "regions": "regional CLIP cosine (more) [95 %]",
}


SIDES = ("masks", "fg_exemplars", "bg_exemplars")


@dataclass(frozen=True)
class TablesConfig:
    """The paper's metrics on folders of pictures."""

    images: tuple[str, ...] = option("folders of made pictures, each as NAME=FOLDER or FOLDER")
    metrics: tuple[Metric, ...] = option("columns", default=("fid", "is", "clip", "lpips", "ssim", "depth"))
    reference: Path | None = option(
        "folder of true pictures: for fid, and by name for lpips, ssim, depth", default=None
    )
    captions: Path | None = option("lines of name:caption, for clip", default=None)
    masks: Path | None = option("folder of masks M, for regions", default=None)
    fg_exemplars: Path | None = option("folder of the foreground's exemplars, for regions", default=None)
    bg_exemplars: Path | None = option("folder of the background's exemplars, for regions", default=None)
    clip: Path | None = option("folder of a CLIP model of the transformers library", default=None)
    weights: Path | None = option(
        "folder of the published weights of fid, is, lpips (default: torch.hub's)", default=None
    )
    lpips_backbone: Literal["alex", "vgg"] = option("of LPIPS", default="alex")
    depth_estimator: str = option("of the depth error: a name as in the nodes, or a path", default="mini")
    models: tuple[Path, ...] = option("folders with estimators, such as ComfyUI's models/depth_estimation", default=())
    limit: int | None = option("the first N pictures of each folder alone", default=None)
    device: str = option("where to compute: cpu, cuda; auto takes cuda where there is one", default="auto")
    out: Path = option("the run folder; what it holds of the same inputs is not made again", default=RUNS)
    threads: int = option("threads on a processor", default=2)

    def given(self, name: str, metric: str) -> Path:
        """A path that a metric needs. Raises ConfigError where it was not given."""
        value: Path | None = getattr(self, name)
        if value is None:
            raise ConfigError(f"{metric} needs --{name.replace('_', '-')}: give it, or leave {metric} out (--metrics)")
        return value

    @property
    def on(self) -> torch.device:
        """The device."""
        chosen = ("cuda" if torch.cuda.is_available() else "cpu") if self.device == "auto" else self.device
        return torch.device(chosen)


def folders(config: TablesConfig) -> dict[str, Pictures]:
    """The folders of made pictures by name. Raises ConfigError where two have the same one."""
    found: dict[str, Pictures] = {}
    for text in config.images:
        name, _, path = text.rpartition("=")
        name = name or Path(path).name
        if name in found:
            raise ConfigError(f"--images: {name} names two folders; write NAME=FOLDER")
        whole = Pictures(Path(path))
        found[name] = whole.limited(list(whole.files)[: config.limit])
    return found


def measured(config: TablesConfig, metric: Metric, made: Pictures) -> tuple[Row, Callable[[], list[Row]]]:
    """What a metric's numbers follow from beside the made pictures, and the function that finds them."""
    device = config.on
    weights = config.weights or Path(torch.hub.get_dir()) / "checkpoints"
    if metric == "is":
        return {}, lambda: pictures.inception_score(made, weights, device)
    if metric == "clip":
        captions, clip = config.given("captions", "clip"), config.given("clip", "clip")
        inputs = {"captions": file_hash(captions), "clip": str(clip)}
        return inputs, lambda: pictures.clip_score(made, pictures.read_captions(captions), clip, device)
    if metric == "regions":
        clip, names = config.given("clip", metric), list(made.files)
        masks, fg, bg = (Pictures(config.given(side, metric)).limited(names) for side in SIDES)
        return {
            "masks": masks.key(),
            "fg": fg.key(),
            "bg": bg.key(),
            "clip": str(clip),
        }, lambda: pictures.regional_cosine(made, masks, fg, bg, clip, device)
    true = Pictures(config.given("reference", metric))
    if metric == "fid":
        return {"reference": true.key()}, lambda: pictures.fid(made, true, weights, device)
    true = true.limited(list(made.files))
    if metric == "lpips":
        inputs = {"reference": true.key(), "backbone": config.lpips_backbone}
        return inputs, lambda: pictures.lpips(made, true, weights, config.lpips_backbone, device)
    if metric == "ssim":
        return {"reference": true.key()}, lambda: pictures.ssim(made, true)
    if config.depth_estimator == "mini":
        print("warning: --depth-estimator mini knows the simple solids of CnC-Mini's world alone, no photographs")
    inputs = {"reference": true.key(), "estimator": config.depth_estimator}
    return inputs, lambda: pictures.depth_error(made, true, config.depth_estimator, config.models)


def measure(config: TablesConfig) -> Row:
    """All metrics of all folders; returns what goes into results.json."""
    folder = RunFolder(config.out)
    found: dict[str, Row] = {}
    for name, made in folders(config).items():
        key = made.key()
        line: dict[Metric, Row] = {}
        for metric in config.metrics:
            inputs, compute = measured(config, metric, made)
            title = f"tables {name} {metric}"
            rows = folder.part(title, {"pictures": key, **inputs}, partial(_part, compute))
            line[metric] = _summary(metric, rows)
            print(f"{title}: {_cell(metric, line[metric])}", flush=True)
        found[name] = {"pictures": len(made.files), **{str(metric): told for metric, told in line.items()}}
    results: Row = {"metrics": list(config.metrics), "folders": found}
    header = ["pictures", "count", *(_title(config, metric) for metric in config.metrics)]
    lines = [
        [name, str(line["pictures"]), *(_cell(metric, line[metric]) for metric in config.metrics)]
        for name, line in found.items()
    ]
    folder.finish("tables_of_pictures", results, f"## Pictures\n\n{markdown(header, lines)}")
    return results


def _part(compute: Callable[[], list[Row]]) -> Part:
    return Part(compute())


def _summary(metric: Metric, rows: list[Row]) -> Row:
    if metric in ("fid", "is"):
        return rows[0]
    return vars(estimate([row["value"] for row in rows]))


def _cell(metric: Metric, told: Row) -> str:
    if metric == "fid":
        return f"{told['value']:.3f}"
    if metric == "is":
        return f"{told['value']:.3f} ({told['deviation']:.3f})"
    return f"{told['mean']:.4f} [{told['low']:.4f}, {told['high']:.4f}]"


def _title(config: TablesConfig, metric: Metric) -> str:
    with_what = {
        "clip": config.clip and config.clip.name,
        "regions": config.clip and config.clip.name,
        "lpips": config.lpips_backbone,
        "depth": Path(config.depth_estimator).name,
    }.get(metric)
    return f"{TITLES[metric]}, {with_what}" if with_what else TITLES[metric]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    add_options(parser, TablesConfig)


def main(arguments: argparse.Namespace) -> None:
    """Run the metrics and print the table."""
    run_measure(from_arguments(TablesConfig, arguments), "tables_of_pictures", measure)
