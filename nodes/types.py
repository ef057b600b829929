"""The pack's own connection types and its place in the menu."""

from comfy_api.latest import io

Fusers = io.Custom("CNC_FUSERS")
Tokens = io.Custom("CNC_TOKENS")
Curve = io.Custom("CNC_CURVE")
Layers = io.Custom("CNC_LAYERS")
MaskList = io.Custom("CNC_MASKS")

CATEGORY = "Compose and Conquer"
