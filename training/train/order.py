"""Which sample comes when: a function of seed and position alone, whatever the number of processes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..config import ConfigError

_HELD_OUT, _EPOCHS = 0, 1  # of the seed's streams


class Drawn(NamedTuple):
    """A turn: in which epoch, and which sample of the set, by its index."""

    epoch: int
    sample: int


class Order:
    """The endless sequence of training samples: every epoch is a permutation of all but the held-out ones.

    samples: how many the set has. held_out: indices that never come, by the seed. Raises ConfigError where none is
    left.
    """

    def __init__(self, samples: int, seed: int, held_out: int) -> None:
        if held_out >= samples:
            raise ConfigError(
                f"{held_out} held-out samples leave none of {samples} samples to train on; lower held_out, or "
                f"prepare more"
            )
        shuffled = np.random.default_rng((seed, _HELD_OUT)).permutation(samples)
        self.held_out = [int(index) for index in np.sort(shuffled[:held_out])]
        self._trained = np.sort(shuffled[held_out:])
        self._seed = seed
        self._epoch = lru_cache(maxsize=2)(self._permutation)

    def __len__(self) -> int:
        """Samples an epoch."""
        return len(self._trained)

    def turns(self, first: int, count: int) -> Sequence[Drawn]:
        """The samples at positions first to first + count; a batch may begin in one epoch and end in the next."""
        return [
            Drawn(epoch, int(self._epoch(epoch)[place]))
            for epoch, place in (divmod(position, len(self)) for position in range(first, first + count))
        ]

    def _permutation(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self._seed, _EPOCHS, epoch)).permutation(self._trained)
