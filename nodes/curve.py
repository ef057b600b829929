"""The node that draws how strongly exemplars act over the sampling."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..cnc_core.guidance import Schedule
from .host.schema import schema
from .host.validation import validated
from .types import CATEGORY, Curve

MOST_POINTS = 256
_SAMPLES = 65
"""Points that are taken of a curve of the host's."""


def parse_curve(text: str) -> tuple[tuple[float, float], ...]:
    """Read points written as ``percent, factor; percent, factor``, with semicolons or lines between them.

    Raises ValueError with the part that is none, and for more than MOST_POINTS.
    """
    parts = [part for part in text.replace("\n", ";").split(";") if part.strip()]
    if len(parts) > MOST_POINTS:
        raise ValueError(f"points has {len(parts)} of them; give at most {MOST_POINTS}")
    points = []
    for part in parts:
        try:
            percent, factor = map(float, part.split(","))
        except ValueError:
            raise ValueError(
                f"{part.strip()[:60]!r} in points is none: they are written percent, factor; percent, factor, such as "
                "0, 1; 0.5, 1; 1, 0"
            ) from None
        points.append((percent, factor))
    return tuple(points)


class LambdaCurve(io.ComfyNode):
    """How weights change over the sampling, and from block to block."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        factor = {"default": 1.0, "min": 0.0, "max": 4.0, "step": 0.05}
        return schema(
            node_id="CnC_LambdaCurve",
            display_name="\N{GREEK SMALL LETTER LAMDA} Curve (Compose and Conquer)",
            category=CATEGORY,
            description="Multiplies the \N{GREEK SMALL LETTER LAMDA} of Soft Guidance over the sampling, and from one "
            "group of the U-Net's blocks to another. Early steps settle where things are and their large shapes, late "
            "ones their surfaces.",
            search_aliases=["lambda schedule", "weight over time", "keyframes", "block weights", "ramp"],
            inputs=[
                io.String.Input(
                    "points",
                    default="0, 1; 1, 1",
                    multiline=True,
                    tooltip="Points as percent, factor; percent, factor. Percent 0 is the start of the sampling, 1 its "
                    "end; between two points the factor goes straight from one to the other. Semicolons or new lines "
                    "between them. Not used where a curve is connected.",
                ),
                io.Float.Input("input", tooltip="Factor in the U-Net's input blocks.", **factor),
                io.Float.Input("middle", tooltip="Factor in its middle block.", **factor),
                io.Float.Input("output", tooltip="Factor in its output blocks, which draw surfaces.", **factor),
                io.Custom("CURVE").Input(
                    "curve",
                    optional=True,
                    tooltip="A curve of ComfyUI's own editor, in place of the points: from left to right over the "
                    "sampling, its height the factor.",
                ),
            ],
            outputs=[Curve.Output("curve_out", display_name="curve", tooltip="To Soft Guidance.")],
        )

    @classmethod
    @validated
    def execute(cls, points: str, input: float, middle: float, output: float, curve: Any = None) -> io.NodeOutput:
        if curve is None:
            given = parse_curve(points)
        else:
            places = [index / (_SAMPLES - 1) for index in range(_SAMPLES)]
            given = tuple((place, max(0.0, float(curve.interp(place)))) for place in places)
        return io.NodeOutput(Schedule(curve=given, input=input, middle=middle, output=output))


NODES: list[type[io.ComfyNode]] = [LambdaCurve]
