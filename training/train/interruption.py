"""SIGTERM and Ctrl-C: the step in progress ends, the run saves, and then it stops."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

import torch


class StopRequest:
    """Notes SIGINT and SIGTERM while its block runs. number: the first signal that came, else 0.

    A second signal acts as usual, so that who cannot wait presses Ctrl-C twice. In a run on several processes it is
    ignored: launchers pass on the signal that the terminal has sent to all of them already. Outside the main thread,
    where Python takes no signals, nothing is noted.
    """

    def __init__(self, accelerator: Any) -> None:
        self._accelerator = accelerator
        self._previous: dict[int, Any] = {}
        self.number = 0

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def agreed(self) -> int:
        """The signal that any process has got, the same in all of them; to be called by all."""
        if self._accelerator.num_processes == 1:
            return self.number
        numbers = torch.tensor([self.number], device=self._accelerator.device)
        return int(self._accelerator.gather(numbers).max())

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.number:
            return
        self.number = number
        if self._accelerator.is_main_process:  # print is not safe here, it may be what was interrupted
            os.write(2, f"\n{signal.Signals(number).name}: finishing this step, then saving\n".encode())
        if self._accelerator.num_processes == 1:
            self.__exit__()
