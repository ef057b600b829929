"""A compound node that expands before anything else of a workflow runs, where the host's cache asks for that.

The cache that newer hosts use by default drops, after each node that ran, what nothing of the workflow has asked for
yet. What an expansion made before is asked for when the node expands again, which is after all that it is connected to:
too late where one of these has changed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from comfy_api.latest import io

from .expansion import GraphBuilder, links

RAW_LINKS = "raw_link" in inspect.signature(io.Input.__init__).parameters
"""Whether this host lets a node have the links themselves, as those with that cache do."""

_OF_VALUES = "_of_values"


def early(
    node: type[io.ComfyNode], announced: Callable[[type[io.ComfyNode], dict[str, Any]], list[GraphBuilder]]
) -> list[type[io.ComfyNode]]:
    """Return the nodes to register for a compound node: itself on hosts that keep what it made, else two.

    The first of the two has the node's id and asks for no value of a connection, so that it runs first. It announces
    the parts that may be needed, and expands into the second, which is not in the menu and is the node as it was. What
    that one expands into is what has been announced, by the host's rules of the same node: of the same class, with the
    same constants and connections.

    Args:
        node: the compound node.
        announced: gives the graphs of all parts that may be needed, of the running node and its inputs as links and
            constants. Those that are not needed do not run.
    """
    if not RAW_LINKS:
        return [node]

    class OfValues(node):  # type: ignore[misc, valid-type]
        __doc__ = node.__doc__

        @classmethod
        def define_schema(cls) -> io.Schema:
            made = super().define_schema()
            made.node_id = f"_{made.node_id}{_OF_VALUES}"
            made.is_dev_only = True
            for output in made.outputs:  # a list is one value, which the first node gives as a list
                output.is_output_list = False
            return made

    class Early(node):  # type: ignore[misc, valid-type]
        __doc__ = node.__doc__

        @classmethod
        def define_schema(cls) -> io.Schema:
            made = super().define_schema()
            for given in made.inputs:
                if not isinstance(given, io.WidgetInput):
                    given.lazy = given.rawLink = True
            return made

        @classmethod
        async def execute(cls, **_: Any) -> io.NodeOutput:  # the host runs what is asynchronous before all else
            linked = links(cls)
            graph = GraphBuilder()
            made = graph.node(f"_{cls.SCHEMA.node_id}{_OF_VALUES}", "values", **linked)
            expansion = graph.finalize()
            for parts in announced(cls, linked):
                expansion.update(parts.finalize())
            return io.NodeOutput(*map(made.out, range(len(cls.SCHEMA.outputs))), expand=expansion)

    return [Early, OfValues]
