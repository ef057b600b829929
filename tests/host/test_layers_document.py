"""Layers from Document: documents in the host's format, against pictures placed by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from .conftest import Host

CANVAS = (24, 20)
WIDTH, HEIGHT = CANVAS
Array = np.ndarray[Any, np.dtype[Any]]


def pixels(height: int, width: int, frames: int = 1, channels: int = 3) -> torch.Tensor:
    """Pixels that are all different, and none of them black."""
    return 0.1 + 0.9 * torch.rand(frames, height, width, channels)


def item(image: torch.Tensor, **given: Any) -> dict[str, Any]:
    return {"image": image, "type": "raster", "x": 0, "y": 0, "z_index": 0, **given}


def document(*items: dict[str, Any], **given: Any) -> dict[str, Any]:
    return {"version": 1, "canvas": CANVAS, "layers": list(items), **given}


def layers(host: Host, made: Any, looks: tuple[Any, ...] | None = None) -> tuple[Any, ...]:
    """What the node makes, the farthest first."""
    node = host.pack.part("nodes.document").LayersFromDocument
    found: tuple[Any, ...] = node.execute(made, looks).args[0]
    return found


def look(host: Host, name: str = "", **given: Any) -> Any:
    return host.pack.part("nodes.host.layers").Layer(name, **given)


def only(host: Host, one: dict[str, Any], **given: Any) -> Any:
    """The single layer of a document."""
    (layer,) = layers(host, document(one, **given))
    return layer


def by_hand(image: Array, x: int, y: int) -> Array:
    """(B, H, W, ...) on an empty canvas, its corner at x and y inside it."""
    sheet = np.zeros((len(image), HEIGHT, WIDTH, *image.shape[3:]), dtype=np.float32)
    sheet[:, y : y + image.shape[1], x : x + image.shape[2]] = image
    return sheet


def check(layer: Any, image: Array, mask: Array, tolerance: float = 0.0) -> None:
    np.testing.assert_allclose(layer.mask, mask, atol=tolerance, rtol=0)
    seen = np.broadcast_to(mask[..., None] > 0, image.shape)
    np.testing.assert_allclose(np.asarray(layer.picture)[seen], image[seen], atol=tolerance, rtol=0)


def test_a_layer_is_set_where_the_document_has_it(host: Host) -> None:
    image = pixels(6, 9)
    layer = only(host, item(image, x=7, y=11, name="cone"))
    check(layer, by_hand(image.numpy(), 7, 11), by_hand(np.ones((1, 6, 9)), 7, 11))
    assert layer.name == "cone" and layer.visible and not layer.is_moved
    assert not layer.picture[layer.mask == 0].any()


@pytest.mark.parametrize(("x", "y"), [(-4, 3), (20, 17), (-2, -5), (0, 18)])
def test_what_reaches_over_the_edge_is_cut_off(host: Host, x: int, y: int) -> None:
    image = pixels(8, 9)
    layer = only(host, item(image, x=x, y=y))
    wide = np.zeros((1, HEIGHT + 40, WIDTH + 40, 3), dtype=np.float32)
    wide[:, 20 + y : 28 + y, 20 + x : 29 + x] = image
    expected = wide[:, 20 : 20 + HEIGHT, 20 : 20 + WIDTH]
    check(layer, expected, (expected > 0).any(-1).astype(np.float32))


@pytest.mark.parametrize(("flip_h", "flip_v"), [(True, False), (False, True), (True, True)])
def test_flips(host: Host, flip_h: bool, flip_v: bool) -> None:
    image, mask = pixels(6, 9), torch.rand(1, 6, 9)
    layer = only(host, item(image, mask=mask, x=2, y=3, flip_h=flip_h, flip_v=flip_v))
    turned, inside = image.numpy(), 1 - mask.numpy()
    if flip_h:
        turned, inside = turned[:, :, ::-1], inside[:, :, ::-1]
    if flip_v:
        turned, inside = turned[:, ::-1], inside[:, ::-1]
    check(layer, by_hand(turned, 2, 3), by_hand(inside, 2, 3))


@pytest.mark.parametrize("quarters", [1, 2, 3, -1, 7])
@pytest.mark.parametrize("opacity", [1.0, 0.3])
def test_quarters_of_a_turn(host: Host, quarters: int, opacity: float) -> None:
    """Clockwise around the centre of the layer, not of what is seen of it; after the flip."""
    image, mask = pixels(6, 10), torch.rand(1, 6, 10)
    mask[:, :, :4] = 1
    placed = item(image, mask=mask, x=5, y=8, flip_h=True, rotation=quarters * math.pi / 2, opacity=opacity)
    layer = only(host, placed)
    turned, inside = (np.rot90(of[:, :, ::-1], -quarters, axes=(1, 2)) for of in (image.numpy(), 1 - mask.numpy()))
    x, y = (7, 6) if quarters % 2 else (5, 8)
    check(layer, by_hand(turned, x, y), opacity * by_hand(inside, x, y), tolerance=1e-4)


def test_any_rotation(host: Host) -> None:
    """A spot beside the centre goes where it is turned to, in its own colour to the edge."""
    image = torch.full((1, 8, 12, 3), 0.2)
    image[:, 2:4, 8:11] = torch.tensor([1.0, 0.5, 0.25])
    mask = 1 - (image[..., 0] == 1).float()
    angle = math.radians(30)
    layer = only(host, item(image, mask=mask, x=6, y=5, rotation=angle, opacity=0.4))
    shown = layer.mask[0].double()
    across, down = 9.5 - 6, 3 - 4
    expected = (
        6 + 6 + across * math.cos(angle) - down * math.sin(angle),
        5 + 4 + across * math.sin(angle) + down * math.cos(angle),
    )
    y, x = torch.meshgrid(torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5, indexing="ij")
    found = ((shown * x).sum() / shown.sum(), (shown * y).sum() / shown.sum())
    assert found == pytest.approx(expected, abs=0.02)
    assert shown.sum() == pytest.approx(6 * 0.4, rel=0.02)
    colours = layer.picture[0][shown > 0.01]
    torch.testing.assert_close(colours, torch.tensor([1.0, 0.5, 0.25]).expand_as(colours), atol=1e-4, rtol=0)


def test_a_box_of_another_size_and_aspect_stretches(host: Host) -> None:
    """Halved in one direction, doubled in the other; nothing of what is transparent is mixed in."""
    image, mask = pixels(8, 6), torch.zeros(1, 8, 6)
    layer = only(host, item(image, x=1, y=2, h=4))
    check(layer, by_hand(image.numpy().reshape(1, 4, 2, 6, 3).mean(2), 1, 2), by_hand(np.ones((1, 4, 6)), 1, 2), 1e-5)
    image[:] = torch.tensor([1.0, 0.2, 0.4])
    image[:, ::2], mask[:, ::2] = torch.tensor([0.0, 1.0, 0.0]), 1
    layer = only(host, item(image, mask=mask, x=1, y=2, w=12, h=4))
    assert layer.mask[0, 2:6, 1:13].numpy() == pytest.approx(0.5) and layer.mask.sum() == pytest.approx(24)
    colours = layer.picture[layer.mask > 0]
    torch.testing.assert_close(colours, torch.tensor([1.0, 0.2, 0.4]).expand_as(colours))


def test_mask_alpha_and_opacity_multiply(host: Host) -> None:
    """1 in the document's mask is transparent; it is stretched to the picture; an opacity beyond 1 is 1."""
    image, mask = pixels(6, 8, channels=4), torch.rand(1, 6, 8)
    layer = only(host, item(image, mask=mask, x=3, y=3, opacity=0.7))
    inside = 0.7 * (1 - mask) * image[..., 3]
    check(layer, by_hand(image[..., :3].numpy(), 3, 3), by_hand(inside.numpy(), 3, 3), 1e-6)
    layer = only(host, item(image[..., :3], mask=torch.full((1, 1, 1), 0.25), x=3, y=3, opacity=3))
    check(layer, by_hand(image[..., :3].numpy(), 3, 3), by_hand(np.full((1, 6, 8), 0.75), 3, 3), 1e-6)


def test_order_is_by_z_index_and_then_by_the_list(host: Host) -> None:
    order = {"a": 2, "b": 0, "c": 2, "d": -1, "e": 0}
    items = [item(pixels(4, 4), name=name, z_index=z) for name, z in order.items()]
    del items[1]["z_index"]
    found = layers(host, document(*items))
    assert [layer.name for layer in found] == ["d", "b", "e", "a", "c"]
    nearest_first = host.pack.part("nodes.host.layers").nearest_first
    assert [found[place].name for place in nearest_first(found)] == ["c", "a", "e", "b", "d"]


def test_what_covers_the_canvas_is_the_backdrop_and_hides_what_is_behind(host: Host) -> None:
    sheet, thing = pixels(HEIGHT, WIDTH), item(pixels(4, 4), x=2, y=2, name="thing")
    back, near = layers(host, document(item(sheet), thing))
    assert back.mask is None and near.mask is not None
    torch.testing.assert_close(back.picture, sheet, atol=0, rtol=0)
    behind, back, near = layers(host, document(item(sheet, name="fill"), item(sheet + 0, name="photo"), thing))
    assert not behind.visible and back.mask is None and (back.name, near.name) == ("photo", "thing")
    for faint in ({"opacity": 0.9}, {"mask": torch.full((1, 4, 4), 0.01)}, {"x": 1}, {"rotation": 0.1}):
        assert only(host, item(sheet, **faint)).mask is not None, faint
    assert only(host, item(sheet, rotation=math.pi)).mask is None
    holed = torch.zeros(2, HEIGHT, WIDTH)
    holed[1, 3, 4] = 1
    assert only(host, item(sheet, mask=holed)).mask is not None, "in one picture of a batch it does not cover all"


@pytest.mark.parametrize(
    "gone", [{"visible": False}, {"opacity": 0}, {"x": WIDTH + 8}, {"y": -99}, {"mask": torch.ones(1, 6, 6)}]
)
@pytest.mark.parametrize("rotation", [0.0, 1.0])
def test_what_is_not_seen_is_off(host: Host, gone: dict[str, Any], rotation: float) -> None:
    found = layers(
        host, document(item(pixels(HEIGHT, WIDTH)), item(pixels(6, 6), **{"x": 60, "rotation": rotation, **gone}))
    )
    assert [layer.visible for layer in found] == [True, False]


def test_a_batch_in_a_layer_is_a_batch_of_results(host: Host) -> None:
    images, masks = pixels(6, 8, frames=3), torch.rand(3, 6, 8)
    layer = only(host, item(images, x=4, y=4))
    check(layer, by_hand(images.numpy(), 4, 4), np.repeat(by_hand(np.ones((1, 6, 8)), 4, 4), 3, 0)[:1])
    layer = only(host, item(images, mask=masks, x=4, y=4, rotation=math.pi))
    turned, inside = images.numpy()[:, ::-1, ::-1], 1 - masks.numpy()[:, ::-1, ::-1]
    check(layer, by_hand(turned, 4, 4), by_hand(inside, 4, 4), 1e-4)
    layer = only(host, item(images[:1], mask=masks, x=4, y=4, w=4))
    assert len(layer.mask) == 3
    for index in range(3):
        alone = only(host, item(images[:1], mask=masks[index : index + 1], x=4, y=4, w=4))
        torch.testing.assert_close(layer.mask[index : index + 1], alone.mask)


@pytest.mark.parametrize("canvas", [None, (0, 0)])
def test_without_a_canvas_it_reaches_as_far_as_its_layers(host: Host, canvas: Any) -> None:
    def size(*items: dict[str, Any]) -> tuple[int, int]:
        made: tuple[int, int] = layers(host, document(*items, canvas=canvas))[0].size
        return made

    assert size(item(pixels(6, 9), x=3, y=2)) == (8, 12)
    assert size(item(pixels(6, 9), x=3, y=2), item(pixels(3, 3), x=-1, y=20, w=30)) == (23, 29)
    assert size(item(pixels(6, 10), x=3, y=4, rotation=math.pi / 2)) == (12, 11)
    assert size(item(pixels(8, 8), x=0, y=0, rotation=math.pi / 4)) == (10, 10)


def test_a_layer_beyond_the_backdrop_is_told(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    back, near = item(pixels(8, 8)), item(pixels(4, 4), x=3)
    layers(host, document(back, near, canvas=None))
    layers(host, document(back, {**near, "x": 6}, canvas=(8, 8)))
    assert not [record for record in caplog.records if "backdrop" in record.getMessage()]
    assert layers(host, document(back, {**near, "x": 6}, canvas=None))[0].mask is not None
    (line,) = (record.getMessage() for record in caplog.records if "backdrop" in record.getMessage())
    assert "as its layers reach, 10 x 8 pixels" in line


def test_a_blend_mode_is_told_once(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    layers(host, document(
        item(pixels(4, 4), name="shade", blend_mode="multiply"), item(pixels(4, 4), blend_mode="normal"),
        item(pixels(4, 4), name="glow", blend_mode="screen"),
        item(pixels(4, 4), name="off", blend_mode="screen", visible=False),
    ))  # fmt: skip
    (line,) = (record.getMessage() for record in caplog.records if "blend mode" in record.getMessage())
    assert "multiply of the document's layer 1 'shade', screen of the document's layer 3 'glow'." in line


def test_looks_go_by_name_and_else_by_place(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    names = ["", "tree", "", "house", "tree", "tree"]
    made = document(*(item(pixels(4, 4), name=name, x=place) for place, name in enumerate(names)))
    words = {"text": "words", "strength": 0.5}
    looks = (
        look(host, "tree", text=1), look(host), look(host, text=3), look(host, "house", text=4, visible=False),
        look(host, "tree", text=5), look(host, "hose", **words), look(host, text=7), look(host, "off", visible=False),
    )  # fmt: skip
    found = layers(host, made, looks)
    assert [layer.text for layer in found] == [None, 1, 3, None, 5, 5]
    assert [layer.name for layer in found] == names and all(layer.visible for layer in found)
    (line,) = (record.getMessage() for record in caplog.records if "went to no layer" in record.getMessage())
    assert "of layers, the one at place 2, 'hose', the one at place 7 went to no layer" in line
    assert "one without a name, 'tree', one without a name, 'house', 'tree', 'tree'." in line


def test_what_a_layer_gives_and_what_the_document_keeps(host: Host) -> None:
    given = {
        "nearer": 0.5, "exemplar_weight": 0.7, "text_weight": 2.0, "strength": 0.4, "start_percent": 0.1,
        "end_percent": 0.9, "exemplar": "exemplar", "text": "text", "curve": "curve",
    }  # fmt: skip
    others = {"z": 9, "x": 0.3, "y": 0.2, "scale": 2.0, "rotation": 9.0, "flip": "vertical"}
    kept = look(host)
    image = pixels(4, 4)
    (layer,) = layers(host, document(item(image, x=2, y=3)), (look(host, **given, **others, picture=pixels(9, 9)),))
    assert {name: getattr(layer, name) for name in given} == given
    assert {name: getattr(layer, name) for name in others} == {name: getattr(kept, name) for name in others}
    check(layer, by_hand(image.numpy(), 2, 3), by_hand(np.ones((1, 4, 4)), 2, 3))


@pytest.mark.parametrize("turned", [{}, {"rotation": math.pi / 2, "mask": torch.zeros(1, 6, 10)}])
def test_a_depth_map_is_of_the_layers_own_picture(host: Host, turned: dict[str, Any]) -> None:
    depth = pixels(6, 10)
    placed = item(pixels(6, 10), x=5, y=8, flip_v=True, **turned)
    (layer,) = layers(host, document(placed), (look(host, depth=depth),))
    (expected,) = layers(host, document({**placed, "image": depth}))
    torch.testing.assert_close(layer.depth, expected.picture, atol=0, rtol=0)
    assert not torch.equal(layer.picture, layer.depth)


def test_the_stack_is_what_the_document_shows(host: Host) -> None:
    """One picture over the other, as soft as they are."""
    sheet, near, nearest = pixels(HEIGHT, WIDTH), pixels(9, 9, channels=4), pixels(8, 12)
    made = document(
        item(nearest, x=8, y=6, z_index=2, opacity=0.6), item(sheet), item(near, x=3, y=4, z_index=1, flip_h=True)
    )
    shown = host.pack.part("nodes.stack").StackLayers.execute(layers(host, made)).args[0]
    expected = sheet.numpy().copy()
    for image, alpha, x, y in (
        (near[..., :3].numpy()[:, :, ::-1], near[..., 3:].numpy()[:, :, ::-1], 3, 4),
        (nearest.numpy(), np.full((1, 8, 12, 1), 0.6), 8, 6),
    ):
        part = expected[:, y : y + image.shape[1], x : x + image.shape[2]]
        part[:] = alpha * image + (1 - alpha) * part
    np.testing.assert_allclose(shown, expected, atol=1e-5)


SMALL = torch.ones(1, 4, 4, 3)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ([1], "document is none of the host's layered documents, but a list"),
        (document(item(SMALL), version=2), "has version 2, and this pack reads version 1: update the pack"),
        (document(item(SMALL), version="new"), "has version 'new', and this pack reads version 1$"),
        (document(), "document has no layers"),
        (document(layers=7), "must have a list of layers, got 7"),
        (document(*[item(SMALL)] * 33), "document has 33 layers, and a stack has at most 32"),
        (document(item(SMALL), canvas=(16385, 8)), "canvas is 16385 x 8 pixels, and no side may be above 16384"),
        (document(item(SMALL, x=16381), canvas=None), "canvas is 16385 x 4 pixels"),
        (document(item(SMALL), canvas=(math.nan, 8)), "canvas: width must be a finite number, got nan"),
        (document(item(SMALL), canvas="wide"), "canvas must be a width and a height, got 'wide'"),
        (document(item(SMALL), ["cone"]), "layer 2 is no layer, but a list"),
        (document(item(SMALL, name=["cone"])), "layer 1 has a list for its name"),
        (document(item(SMALL), item(SMALL, name="hat", type="text")), "layer 2 'hat': it is of the type 'text', and"),
        (document(item("picture", name="hat")), "layer 1 'hat': image must be a tensor, got 'picture'"),
        (document(item(SMALL[..., :2])), "layer 1: image must be a picture"),
        (document(item(SMALL * math.nan)), "layer 1: its image has 48 values that are not a number"),
        (document(item(SMALL, mask="none")), "layer 1: mask must be a tensor, got 'none'"),
        (document(item(SMALL, mask=torch.full((1, 4, 4), math.nan))), "layer 1: the mask has 16 values"),
        (document(item(torch.ones(3, 4, 4, 3), mask=torch.ones(2, 4, 4))), "it has 3 pictures and 2 masks"),
        (document(item(SMALL, rotation=math.inf, name="hat")), "layer 1 'hat': rotation must be a finite number, got"),
        (document(item(SMALL, x=10**400)), "layer 1: x must be a finite number, got 1000"),
        (document(item(SMALL, opacity="half")), "layer 1: opacity must be a finite number, got 'half'"),
        (document(item(SMALL, z_index=True)), "layer 1: z_index must be a finite number, got True"),
        (document(item(SMALL, w=20000)), "layer 1: it is 20000 x 4 pixels large"),
        (document(item(SMALL, flip_h=1)), "layer 1: flip_h must be true or false, got 1"),
        (document(item(SMALL, visible="no")), "layer 1: visible must be true or false, got 'no'"),
        (document(item(SMALL, blend_mode=3)), "layer 1: blend_mode must be a text, got 3"),
    ],
)  # fmt: skip
def test_what_is_no_document_is_told(host: Host, made: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words) as told:
        layers(host, made)
    assert len(str(told.value)) < 400


def test_depth_maps_that_do_not_go_together_are_told(host: Host) -> None:
    made = document(item(SMALL, name="hat", mask=torch.zeros(3, 4, 4)))
    with pytest.raises(ValueError, match="layer 1 'hat' has 2 depth maps and 3 masks"):
        layers(host, made, (look(host, depth=torch.ones(2, 4, 4, 3)),))


def test_huge_numbers_are_nowhere(host: Host) -> None:
    for rotation in (0.0, 1.0, 1e300):
        assert not only(host, item(SMALL, x=1e300, y=-1e300, rotation=rotation)).visible
