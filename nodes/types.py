"""The pack's own connection types and its place in the menu."""

from comfy_api.latest import io

Fusers = io.Custom("CNC_FUSERS")
Tokens = io.Custom("CNC_TOKENS")
Curve = io.Custom("CNC_CURVE")
Layers = io.Custom("CNC_LAYERS")
Document = io.Custom("LAYERS")  # the host's own; named here because older hosts do not have its class
MaskList = io.Custom("CNC_MASKS")

CATEGORY = "Compose and Conquer"

IN_DEPTH = ("in front", "behind", "occlusion")
OF_STYLE = ("style transfer", "IP adapter", "ipadapter")
"""Words that people look for a node by, for its search aliases."""
