"""Where pictures come from. Each source lists stable ids and reads one item at a time."""

from .base import BrokenItem, Raw, Source, SourceError
from .coco import CocoSource
from .folder import FolderSource
from .pickapic import PickAPicSource
from .release import ReleaseSource
from .scenes import SceneSource
from .tars import TarSource

__all__ = [
    "BrokenItem",
    "CocoSource",
    "FolderSource",
    "PickAPicSource",
    "Raw",
    "ReleaseSource",
    "SceneSource",
    "Source",
    "SourceError",
    "TarSource",
]
