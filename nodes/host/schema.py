"""What newer hosts know about a node and older ones do not: given where it is understood."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

from comfy_api.latest import io

ADVANCED: dict[str, Any] = (
    {"advanced": True} if "advanced" in inspect.signature(io.Float.Input.__init__).parameters else {}
)
"""Options of an input for experts: `io.Float.Input(..., **ADVANCED)`."""


class FileChoice(io.Combo.Input):
    """A choice among files. What loads one says what is wrong with a name: a list may be older than its folder."""


_KNOWN = {field.name for field in dataclasses.fields(io.Schema)}


def schema(*, search_aliases: list[str], **fields: Any) -> io.Schema:
    """A node's schema; search_aliases are other words that an artist may look for it by."""
    if "search_aliases" in _KNOWN:
        fields["search_aliases"] = search_aliases
    return io.Schema(**fields)
