"""Nodes that load fusers."""

from __future__ import annotations

from comfy_api.latest import io

from .host import fusers as host_fusers
from .host import mini
from .host.folders import fuser_files, fuser_path
from .host.schema import FileChoice, schema
from .host.validation import validated
from .types import CATEGORY, Fusers


class LoadFusers(io.ComfyNode):
    """Load a checkpoint of fusers from ``models/cnc``."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="CnC_LoadFusers",
            display_name="Load Fusers (Compose and Conquer)",
            category=CATEGORY,
            description="Loads Compose and Conquer's local fuser (depth), global fuser (exemplars), or both, from a "
            "file in models/cnc: the authors' cnc_v1.ckpt, local_fuser_v1.ckpt and global_fuser_v1.ckpt as they "
            "are, or a .safetensors of your own training.",
            search_aliases=["compose and conquer", "cnc", "load cnc", "depth fuser", "cnc_v1"],
            inputs=[
                FileChoice(
                    "fusers_name",
                    options=fuser_files(),
                    tooltip="A checkpoint in models/cnc. Only the fusers are read from it: the base model comes "
                    "from your own checkpoint loader.",
                )
            ],
            outputs=[
                Fusers.Output(
                    "fusers",
                    display_name="fusers",
                    tooltip="For Apply Local Fuser (depth) and Apply Global Fuser (exemplars).",
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, fusers_name: str | None) -> bool | str:
        """Say before anything runs that there is no such file, and where to put one; None comes over a link."""
        try:
            return not isinstance(fusers_name, str) or bool(fuser_path(fusers_name))
        except FileNotFoundError as error:
            return str(error)

    @classmethod
    @validated
    def execute(cls, fusers_name: str) -> io.NodeOutput:
        return io.NodeOutput(host_fusers.load(fuser_path(fusers_name)))


class LoadMini(io.ComfyNode):
    """Load CnC-Mini, all of it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="CnC_LoadMini",
            display_name="Load CnC-Mini (Compose and Conquer)",
            category=CATEGORY,
            description="Loads CnC-Mini, which comes with the pack: a small model of the same architecture, trained "
            "from nothing on pictures of simple solids, 128 x 128. It shows how the nodes work together, with "
            "no download and no GPU, and draws nothing else: for pictures of your own use Stable Diffusion 1.5 "
            "and the released fusers.",
            search_aliases=["compose and conquer", "cnc", "mini", "demo model", "test model"],
            inputs=[],
            outputs=[
                io.Model.Output("model", display_name="model", tooltip="The small U-Net, which predicts v."),
                io.Clip.Output("clip", display_name="clip", tooltip="Its text encoder; it knows some 60 words."),
                io.Vae.Output("vae", display_name="vae", tooltip="Its autoencoder."),
                io.ClipVision.Output(
                    "clip_vision", display_name="clip_vision", tooltip="Its image encoder, for exemplars."
                ),
                Fusers.Output("fusers", display_name="fusers", tooltip="Its local and global fuser."),
            ],
        )

    @classmethod
    @validated
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(*mini.load())


NODES: list[type[io.ComfyNode]] = [LoadFusers, LoadMini]
