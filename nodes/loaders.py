"""Nodes that load fusers."""

from __future__ import annotations

import folder_paths
from comfy_api.latest import io

from .host import fusers as host_fusers
from .host.folders import FUSERS
from .host.schema import schema
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
                io.Combo.Input(
                    "fusers_name",
                    options=folder_paths.get_filename_list(FUSERS),
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
    def execute(cls, fusers_name: str) -> io.NodeOutput:
        return io.NodeOutput(host_fusers.load(folder_paths.get_full_path_or_raise(FUSERS, fusers_name)))


NODES: list[type[io.ComfyNode]] = [LoadFusers]
