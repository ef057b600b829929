"""The order measure, on pictures whose order is known."""

import torch

from training.evaluate.occlusion import Outlines, large_enough, regions, verdict


def disc(x: float, y: float, size: int = 64, radius: float = 16) -> torch.Tensor:
    down, across = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return (((across - x) ** 2 + (down - y) ** 2) < radius**2).float()


def painted(
    front: torch.Tensor, back: torch.Tensor, front_colour: list[float], back_colour: list[float]
) -> torch.Tensor:
    picture = torch.full((3, *front.shape), 0.5)
    for shape, colour in ((back, back_colour), (front, front_colour)):
        picture = torch.where(shape > 0, torch.tensor(colour)[:, None, None], picture)
    return picture


A, B = disc(26, 32), disc(40, 30)
RED, BLUE = [0.9, 0.1, 0.1], [0.1, 0.1, 0.9]


def test_a_picture_names_whoever_was_painted_last() -> None:
    assert verdict(painted(A, B, RED, BLUE), A, B).says(True)
    assert verdict(painted(B, A, BLUE, RED), A, B).says(False)


def test_a_blend_satisfies_neither() -> None:
    picture = painted(A, B, RED, BLUE)
    overlap = regions(A, B)[0]
    picture = torch.where(overlap, torch.tensor(BLUE)[:, None, None], painted(A, B, RED, RED))
    found = verdict(picture, A, B)
    assert not (found.says(True) and found.says(False))


def test_one_colour_for_both_has_no_edge() -> None:
    assert Outlines.of(A[None], B[None]).edge_excess(painted(A, B, RED, RED)[None]) == 0.0


def test_small_overlaps_do_not_count() -> None:
    assert large_enough(A, B)
    assert not large_enough(A, disc(57, 32))


def test_a_batch_of_pairs_is_judged_as_each_alone() -> None:
    shapes = [(A, B), (disc(20, 20), disc(31, 25)), (disc(40, 40, radius=12), disc(30, 44))]
    pictures = [painted(a, b, RED, BLUE) for a, b in shapes]
    together = Outlines.of(torch.stack([a for a, _ in shapes]), torch.stack([b for _, b in shapes]))
    alone = [verdict(picture, a, b) for picture, (a, b) in zip(pictures, shapes, strict=True)]
    assert together.verdicts(torch.stack(pictures)) == alone
    assert together[1:].verdicts(torch.stack(pictures[1:])) == alone[1:]
