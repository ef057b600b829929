"""Compose and Conquer for ComfyUI: place things in front of each other, each layer with a look of its own."""

from .nodes import comfy_entrypoint

WEB_DIRECTORY = "./web"

__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
