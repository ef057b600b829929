"""What every estimator is: a network, or none, between a pure `prepare` and a pure `finish`.

The split lets a host run the network inside its own memory management, and lets training run it
directly, with one implementation of everything around it. Pictures are (B, H, W, 3) in [0, 1] on both
sides, and what comes out has the height and width of what went in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, Protocol

import torch
import torch.nn as nn
from torch import Tensor

from ..pictures import check_image as check_image
from ..pictures import check_mask as check_mask  # for the estimators, which need both

if TYPE_CHECKING:
    from .selection import Box, Point

Kind = Literal["depth", "saliency", "inpainting", "selection"]
Preprocessing = Literal["model", "release"]

KINDS: tuple[Kind, ...] = ("depth", "saliency", "inpainting", "selection")
PREPROCESSING: tuple[Preprocessing, ...] = ("model", "release")

Run = Callable[..., Tensor]
"""Runs an estimator's network on what `prepare` returned."""


class PerceptionError(Exception):
    """An estimator that is not there, or whose files are not what they should be."""


class MapEstimator(Protocol):
    """Depth or salience: one value a pixel.

    One that reads the picture's alpha as well has an attribute `channels` of 4.
    """

    @property
    def network(self) -> nn.Module | None:
        """Takes the tensor that `prepare` returns; None where no network is needed."""

    def prepare(self, image: Tensor, *, preprocessing: Preprocessing = "model") -> Tensor:
        """(B, H, W, 3) in [0, 1] to the network's input.

        `preprocessing` "model" is what the estimator was trained with; "release" is what the released
        Compose and Conquer weights saw: raw [0, 1] values, with no mean and deviation taken out.
        """

    def finish(self, output: Tensor, height: int, width: int) -> Tensor:
        """The network's output to (B, height, width).

        Depth: relative disparity of any scale and offset, near is large. Salience: in [0, 1].
        """


class Inpainter(Protocol):
    """Fills a hole in a picture."""

    @property
    def network(self) -> nn.Module | None:
        """Takes the tensor that `prepare` returns; None where no network is needed."""

    def prepare(self, image: Tensor, hole: Tensor) -> Tensor:
        """(B, H, W, 3) in [0, 1] and a hole (B, H, W) in {0, 1} to the network's input."""

    def finish(self, output: Tensor, height: int, width: int) -> Tensor:
        """The network's output to (B, height, width, 3) in [0, 1]; only the hole's pixels are used."""


class Selector(Protocol):
    """Finds the one object that points and a box show."""

    @property
    def network(self) -> nn.Module:
        """Takes the tensors that `prepare` returns."""

    def prepare(self, image: Tensor, points: tuple[Point, ...], box: Box | None) -> tuple[Tensor, ...]:
        """(B, H, W, 3) in [0, 1], with points and a box in its pixels, to the network's inputs."""

    def finish(self, output: Tensor, height: int, width: int) -> Tensor:
        """The network's output to a mask (B, height, width) of 0 and 1."""


def estimate(
    estimator: MapEstimator, image: Tensor, *, preprocessing: Preprocessing = "model", run: Run | None = None
) -> Tensor:
    """Depth or salience of a batch: (B, H, W, 3) in [0, 1] to (B, H, W).

    An estimator that reads alpha takes (B, H, W, 4). `run` stands in for the plain call of the network, where a
    host has its own way to run it. Raises ValueError for a picture that `check_image` refuses, or an unknown
    preprocessing.
    """
    check_image(image, channels_read(estimator))
    if preprocessing not in PREPROCESSING:
        raise ValueError(f"preprocessing is one of {', '.join(PREPROCESSING)}; got {preprocessing!r}")
    prepared = estimator.prepare(image, preprocessing=preprocessing)
    output = apply_network(estimator.network, prepared, run)
    return estimator.finish(output, image.shape[1], image.shape[2])


def channels_read(estimator: MapEstimator) -> int:
    """3, or 4 for an estimator that reads a picture's alpha."""
    channels: int = getattr(estimator, "channels", 3)
    return channels


def apply_network(network: nn.Module | None, prepared: Tensor, run: Run | None = None) -> Tensor:
    """The network's output, by `run` where one is given; `prepared` itself where there is no network.

    The network gets it channels first in memory too. With channels last, as pictures come, torch's group norm is a
    hundred times less exact on a CPU, and what it gives depends on threads and on neighbours in the batch.
    """
    if network is None:
        return prepared
    with torch.no_grad():
        return (run or network)(prepared.contiguous())
