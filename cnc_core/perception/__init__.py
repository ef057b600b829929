"""From a picture to its layers: depth, salience, inpainting.

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
    estimate,
)
from .inpaint import DILATION, FEATHER, dilate, inpaint
from .masks import refine_mask
from .mini import MiniNet
from .mini_estimator import MiniEstimator, load_mini
from .opencv_inpaint import OpenCVInpainter
from .registry import available, load, load_depth, load_inpainter, load_saliency, model_path
from .transformers_depth import TransformersDepth, load_transformers_depth

__all__ = [
    "DILATION",
    "FEATHER",
    "KINDS",
    "PREPROCESSING",
    "VERSIONS",
    "Inpainter",
    "MapEstimator",
    "MiniEstimator",
    "MiniNet",
    "OpenCVInpainter",
    "PerceptionError",
    "Preprocessing",
    "TransformersDepth",
    "Version",
    "available",
    "depth_map",
    "dilate",
    "estimate",
    "inpaint",
    "load",
    "load_depth",
    "load_inpainter",
    "load_mini",
    "load_saliency",
    "load_transformers_depth",
    "model_path",
    "normalise",
    "refine_mask",
]
