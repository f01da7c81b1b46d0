from __future__ import annotations

from typing import Iterator, List

import pytest
import torch

from fedspect.data.pictures import CheckedPicture
from training_pictures import make_pictures


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> List[CheckedPicture]:
    """Eight pictures of each of three classes."""
    return make_pictures(tmp_path_factory.mktemp("pictures"), 8)


@pytest.fixture(scope="session")
def others(tmp_path_factory: pytest.TempPathFactory) -> List[CheckedPicture]:
    """Four more of each."""
    return make_pictures(tmp_path_factory.mktemp("others"), 4, first=100)
