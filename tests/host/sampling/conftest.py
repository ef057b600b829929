"""The golden model on the host in this process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from ..conftest import Host
from .golden_model import GoldenModel, build


@pytest.fixture(scope="session")
def small(host: Host, tmp_path_factory: pytest.TempPathFactory) -> GoldenModel:
    """The golden model, its fusers and its tokens, for the two golden pictures."""
    return build(host, tmp_path_factory.mktemp("golden"))


@pytest.fixture(scope="session")
def one(small: GoldenModel) -> GoldenModel:
    """The same with the first of the two golden pictures alone."""
    return small.first()


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small lose more by waiting for a second thread than they win."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
