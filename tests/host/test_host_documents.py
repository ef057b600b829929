"""Documents that the host's own nodes make, where it has them: what becomes of them up to the picture."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from devtools.demo import PICTURES, opened
from devtools.server import Run, Server
from devtools.workflow import Node, Workflow

Array = np.ndarray[Any, np.dtype[Any]]


@pytest.fixture(scope="module")
def layered(server: Server) -> Server:
    """A server whose host has the layered document."""
    if "AddLayer" not in server.object_info():
        pytest.skip("this host has no layered document")
    for path in PICTURES.glob("*.png"):
        (server.input / path.name).write_bytes(path.read_bytes())
    return server


@dataclass
class Flow:
    """Add Layer -> Layers from Document -> Compose Layers -> a picture.

    words: of the layers, by name. canvas: of the document's own, in place of one as large as its layers reach.
    """

    server: Server
    words: dict[str, str] = field(default_factory=dict)
    canvas: int | None = None

    def run(self, *, sampled: bool = True) -> dict[str, Array]:
        """The pictures (B, H, W, 3) in [0, 255] of what Compose Layers shows, of the host's own, and the sampled."""
        flow = Workflow(self.server.object_info())
        mini = flow.add("CnC_LoadMini")
        document = self._document(flow)
        layers = flow.add("CnC_LayersFromDocument", document=document.out(), **self._looks(flow, mini))
        positive, negative = (flow.add("CLIPTextEncode", clip=mini.out(1), text=text) for text in ("noon", ""))
        composed = flow.add(
            "CnC_ComposeLayers",
            model=mini.out(0),
            positive=positive.out(),
            negative=negative.out(),
            layers=layers.out(),
            saliency="mini",
            depth="mini",
            fusers=mini.out("fusers"),
        )
        pictures = {
            "shown": composed.out("picture"),
            "depth": composed.out("depth_map"),
            "masks": flow.add("MaskToImage", mask=composed.out("masks")).out(),
            "host": flow.add("ImageCompositor", layers=document.out(), compositor={}).out(),
        }
        if sampled:
            latent = flow.add("EmptyLatentImage", width=128, height=128)
            conditioned = {name: composed.out(place) for place, name in enumerate(("model", "positive", "negative"))}
            samples = flow.add("KSampler", latent_image=latent.out(), steps=2, cfg=2.5, **conditioned)
            pictures["sampled"] = flow.add("VAEDecode", samples=samples.out(), vae=mini.out(2)).out()
        seen = {name: flow.add("PreviewImage", images=images) for name, images in pictures.items()}
        run: Run = self.server.run(flow.prompt)
        assert run.error is None, run.error
        return {name: np.stack([np.asarray(opened(of), dtype=float) for of in run.images(one.id)])
                for name, one in seen.items()}  # fmt: skip

    def _looks(self, flow: Workflow, mini: Node) -> dict[str, Any]:
        looks: dict[str, Any] = {}
        for name, words in self.words.items():
            text = flow.add("CLIPTextEncode", clip=mini.out(1), text=words)
            looks = {"layers": flow.add("CnC_Layer", name=name, text=text.out(), **looks).out()}
        return looks

    def _document(self, flow: Workflow) -> Node:
        """A meadow, a cone turned and flipped, and a flat cube before them."""
        meadow = flow.add("LoadImage", image="meadow.png")
        if self.canvas is None:
            document = flow.add("AddLayer", image=meadow.out(), name="meadow", z_index=-1)
        else:
            side = {"canvas_width": self.canvas, "canvas_height": self.canvas}
            document = flow.add("LayersFromBoundingBoxes", image=meadow.out(), bboxes="[]", **side)
        for name, place in {
            "cone": {"x": 40, "y": -6, "rotation": 90.0, "flip_v": True},
            "cube": {"x": 20, "y": 50, "width": 96, "height": 64, "flip_h": True},
        }.items():
            image = flow.add("LoadImage", image=f"{name}.png")
            found = flow.add("CnC_SalientMask", image=image.out(), estimator="mini")
            mask = flow.add("InvertMask", mask=found.out())
            document = flow.add(
                "AddLayer", layers=document.out(), image=image.out(), mask=mask.out(), name=name, **place
            )
        return document


def check_shown(seen: dict[str, Array], width: int) -> None:
    """As the host shows it but for the edges, which the host smooths in another way."""
    assert seen["shown"].shape == (1, 128, width, 3) and len(seen["masks"]) == 3
    apart = np.abs(seen["shown"] - seen["host"]).max(-1)
    assert (apart > 8).mean() < 0.05 and np.median(apart) <= 1


def test_a_document_is_as_large_as_the_host_makes_it(layered: Server) -> None:
    check_shown(Flow(layered).run(sampled=False), width=168)


@pytest.mark.slow
def test_a_document_of_the_hosts_own_nodes_is_composed(layered: Server) -> None:
    """With a canvas of its own; words by layer act, and change nothing else."""
    plain, worded = (Flow(layered, words, canvas=128).run() for words in ({}, {"cone": "yellow", "cube": "blue cube"}))
    check_shown(plain, width=128)
    for name in plain.keys() - {"sampled"}:
        np.testing.assert_array_equal(plain[name], worded[name])
    assert np.abs(plain["sampled"] - worded["sampled"]).mean() > 1
