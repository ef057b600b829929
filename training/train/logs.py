"""What a run tells while it goes: a progress bar, one JSON object a step, and TensorBoard's files."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from torch import Tensor

from ..files import replacing

FILE = "log.jsonl"


class RunLog:
    """The log of one run's folder, gone on with after `step`: what was logged beyond it, before a kill, is dropped."""

    def __init__(self, folder: Path, step: int, total: int, batch: int, *, tensorboard: bool) -> None:
        from tqdm import tqdm

        path = folder / FILE
        _cut(path, step)
        self._file = path.open("a", encoding="utf-8")
        self._writer: Any = _tensorboard(folder / "tensorboard", step) if tensorboard else None
        self._bar = tqdm(total=total * batch, initial=step * batch, unit="sample", smoothing=0.1, disable=None)
        self._batch, self._last = batch, time.monotonic()

    def step(self, step: int, facts: dict[str, float | int]) -> None:
        """One optimisation step: its loss, rate, and so on."""
        now = time.monotonic()
        speed = self._batch / (now - self._last)
        self._last = now
        self._write({"step": step, **facts, "samples_per_second": round(speed, 3)})
        self._bar.update(self._batch)
        self._bar.set_postfix(loss=f"{facts['loss']:.4f}", refresh=False)

    def validation(self, step: int, loss: float, best: bool) -> None:
        """The validation loss of a checkpoint."""
        self._write({"step": step, "validation_loss": loss, "best": best})
        self.say(f"step {step}: validation loss {loss:.5f}{', the lowest so far' if best else ''}")
        self._last = time.monotonic()

    def picture(self, step: int, picture: Tensor) -> None:
        """A grid (3, H, W) in [0, 1]."""
        if self._writer:
            self._writer.add_image("results", picture, step)
        self._last = time.monotonic()

    def say(self, text: str) -> None:
        """A line for who looks on."""
        self._bar.write(text)

    def close(self) -> None:
        """End all of it."""
        self._bar.close()
        self._file.close()
        if self._writer:
            self._writer.close()

    def _write(self, facts: dict[str, Any]) -> None:
        self._file.write(json.dumps(facts) + "\n")
        self._file.flush()
        if self._writer:
            for name, value in facts.items():
                if isinstance(value, float):
                    self._writer.add_scalar(name, value, facts["step"])


def read_log(folder: Path) -> list[dict[str, Any]]:
    """All lines of a run's log; a last one that a kill cut short is left out."""
    return [json.loads(line) for line in _whole_lines(folder / FILE)]


def _whole_lines(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return text[: text.rfind("\n") + 1].splitlines()


def _cut(path: Path, step: int) -> None:
    kept = [line for line in _whole_lines(path) if json.loads(line)["step"] <= step] if step else []
    with replacing(path) as unfinished:
        unfinished.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def _tensorboard(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError(
            "TensorBoard's files need the package: `pip install tensorboard`, or give --no-tensorboard"
        ) from error
    return SummaryWriter(str(folder), purge_step=step + 1)
