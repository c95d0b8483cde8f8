"""Fixtures that many tests share. Functions that need no set-up are in `helpers`."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed import Client
from helpers import facts, save
from hypothesis import HealthCheck, settings

from models import Bundle
from pipeline.cluster import connected

# machines differ in speed, and fixtures here are either read only or made to be used again
unhurried = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]
settings.register_profile("swathe", deadline=None, print_blob=True, suppress_health_check=unhurried)
settings.load_profile("swathe")


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Compiled networks and downloads of the tests go to a folder of their own."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWATHE_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def bundle_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Bundle]:
    """Give a small bundle by `helpers.facts`'s arguments; equal arguments give the same one all session long."""
    made: dict[str, Bundle] = {}

    def give(architecture: str = "simple-unet", *, seed: int = 0, **changes: Any) -> Bundle:
        key = repr((architecture, seed, sorted(changes.items())))
        if key not in made:
            made[key] = save(tmp_path_factory.mktemp("bundle") / "b", facts(architecture, **changes), seed)
        return made[key]

    return give


@pytest.fixture(scope="session")
def client() -> Iterator[Client]:
    """One Dask worker in this process for all tests, as `run` makes for itself."""
    with connected(None, 3) as made:
        yield made


@pytest.fixture
def threads() -> Iterator[None]:
    """Put torch's thread count back, which engines set for the whole process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
