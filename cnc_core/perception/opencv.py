"""OpenCV, imported when something needs it."""

from __future__ import annotations

from types import ModuleType

from ..command_lines import pip_install
from .estimator import PerceptionError


def opencv() -> ModuleType:
    """The module cv2. Raises PerceptionError, with what to do, where no OpenCV is installed."""
    try:
        import cv2
    except ImportError as error:
        raise PerceptionError(
            f"masks and inpainting need OpenCV, which cannot be imported ({error}): install it with "
            f"`{pip_install('opencv-python')}`"
        ) from error
    module: ModuleType = cv2
    return module
