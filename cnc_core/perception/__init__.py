"""From a picture to its layers: depth, salience, selection, inpainting.

Every estimator is real, chosen by name and optional. Each has a `network` (a module, or None) and a pure
`prepare` and `finish` around it: see `estimator`. Pictures are (B, H, W, 3) in [0, 1]; what comes out has
the height and width of what went in. Only a model's own loader imports what it needs.
"""

from .depth import VERSIONS, Version, depth_map, normalise
from .estimator import (
    KINDS,
    PREPROCESSING,
    Inpainter,
    MapEstimator,
    PerceptionError,
    Preprocessing,
    Selector,
    channels_read,
    estimate,
)
from .inpaint import DILATION, FEATHER, dilate, inpaint
from .masks import refine_mask
from .mini import MiniNet
from .mini_estimator import MiniEstimator, load_mini
from .opencv_inpaint import OpenCVInpainter
from .registry import available, load, load_depth, load_inpainter, load_saliency, load_selector, model_path
from .selection import Box, Point, parse_box, parse_points, select
from .transformers_depth import TransformersDepth, load_transformers_depth

__all__ = [
    "DILATION",
    "FEATHER",
    "KINDS",
    "PREPROCESSING",
    "VERSIONS",
    "Box",
    "Inpainter",
    "MapEstimator",
    "MiniEstimator",
    "MiniNet",
    "OpenCVInpainter",
    "PerceptionError",
    "Point",
    "Preprocessing",
    "Selector",
    "TransformersDepth",
    "Version",
    "available",
    "channels_read",
    "depth_map",
    "dilate",
    "estimate",
    "inpaint",
    "load",
    "load_depth",
    "load_inpainter",
    "load_mini",
    "load_saliency",
    "load_selector",
    "load_transformers_depth",
    "model_path",
    "normalise",
    "parse_box",
    "parse_points",
    "refine_mask",
    "select",
]
