"""What a node gets is checked against its own schema before it runs, and its errors name no folder of the server.

The host checks constants alone, and not all of those: NaN passes its range, and a linked value any. Nothing is
looked at here that the schema does not say; a picture's shape and values are checked where they are read.
"""

from __future__ import annotations

import functools
import inspect
import numbers
from collections.abc import Callable
from typing import Any

from comfy_api.latest import io
from torch import Tensor

from .folders import without_server_paths
from .schema import FileChoice


def validated(execute: Callable[..., io.NodeOutput]) -> Callable[..., io.NodeOutput]:
    """Wrap a node's ``execute`` so that it gets only what its schema allows.

    Raises ValueError, with the input's name, what it must be and what came, before the node does anything. An
    error of the node's own that names a file by the server's path is raised as a ValueError that names it by
    folder and name; the first one is its cause, which the console shows.
    """
    names = list(inspect.signature(execute).parameters)[1:]

    @functools.wraps(execute)
    def checked(node: type[io.ComfyNode], *args: Any, **inputs: Any) -> io.NodeOutput:
        given = {**dict(zip(names, args, strict=False)), **inputs}
        schema = node.SCHEMA or node.GET_SCHEMA()
        for one in schema.inputs:
            if one.id in given:
                _check(one, given[one.id])
        try:
            return execute(node, *args, **inputs)
        except Exception as error:
            words = without_server_paths(str(error))
            if words == str(error):
                raise
            raise ValueError(words) from error

    return checked


def _check(given: io.Input, value: Any) -> None:
    if value is None and given.optional:
        return
    if isinstance(given, (io.Int.Input, io.Float.Input)):
        problem = _number(given, value)
    elif isinstance(given, io.Boolean.Input):
        problem = None if isinstance(value, bool) else "must be true or false"
    elif isinstance(given, io.Combo.Input):
        problem = _choice(given, value)
    elif isinstance(given, io.String.Input):
        problem = None if isinstance(value, str) else "must be a text"
    elif isinstance(given, (io.Image.Input, io.Mask.Input)):
        problem = None if isinstance(value, Tensor) else "must be connected to a node that gives pictures or masks"
    else:
        constant = value is None or isinstance(value, (str, int, float))
        problem = "must be connected to a node that gives one" if constant else None
    if problem:
        raise ValueError(f"{given.id} {problem}, got {_shortened(value)}")


def _number(given: io.Int.Input | io.Float.Input, value: Any) -> str | None:
    whole = isinstance(given, io.Int.Input)
    kind = numbers.Integral if whole else numbers.Real
    if isinstance(value, kind) and not isinstance(value, bool) and given.min <= value <= given.max:
        return None  # NaN is in no range
    return f"must be a {'whole ' if whole else ''}number from {given.min:g} to {given.max:g}"


def _choice(given: io.Combo.Input, value: Any) -> str | None:
    if isinstance(given, FileChoice):
        return None if isinstance(value, str) else "must be the name of one of its choices"
    options = [str(option) for option in given.options]
    listed = f"{', '.join(options[:-1])} or {options[-1]}" if len(options) > 1 else options[0]
    return None if value in given.options else f"must be {listed}"


def _shortened(value: Any, most: int = 60) -> str:
    if isinstance(value, (str, int, float, bool)) or value is None:
        text = repr(value)
        return text if len(text) <= most else f"{text[:most]}..."
    return type(value).__name__
