"""Prepared sets from pictures: `prepare(PrepareConfig(...))` in a notebook, `python -m training prepare` in a shell."""

from .config import PrepareConfig, open_source
from .encoders import EncoderError
from .run import TooManyBroken, prepare
from .sheet import draw_sheet
from .sources import SourceError

__all__ = [
    "EncoderError",
    "PrepareConfig",
    "SourceError",
    "TooManyBroken",
    "draw_sheet",
    "open_source",
    "prepare",
]
