"""A picture's own alpha channel as its salience."""

from __future__ import annotations

from torch import Tensor

from .estimator import Preprocessing


class AlphaEstimator:
    """Salience is what the picture says of itself: 1 where it is opaque, 0 where it is transparent."""

    network = None
    channels = 4

    def prepare(self, image: Tensor, *, preprocessing: Preprocessing = "model") -> Tensor:
        """(B, H, W, 4) to its last channel, (B, H, W); both kinds of preprocessing are the same."""
        del preprocessing
        return image[..., 3]

    def finish(self, output: Tensor, height: int, width: int) -> Tensor:
        """(B, height, width) to the same in [0, 1]."""
        del height, width
        return output.clamp(0.0, 1.0)
