"""The tiny world of this room: a model, a folder of tasks, and Hugging Face caches of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.tiny_world import write_model, write_world


@pytest.fixture(scope="session", autouse=True)
def hugging_face(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep data sets out of the user's cache and off the network; tiny models are fastest on one thread."""
    import datasets.config
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("datasets")))
        patch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
        yield
    torch.set_num_threads(threads)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write the three tasks, their data beside them."""
    return write_world(tmp_path)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the tiny model; copy it before changing it."""
    return write_model(tmp_path_factory.mktemp("tiny"))
