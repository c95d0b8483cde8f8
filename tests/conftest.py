"""Fixtures that many tests share. Functions that need no set-up are in `helpers`."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import pytest
import torch
from distributed import Client
from helpers import metadata, save
from hypothesis import HealthCheck, settings

from models import Bundle
from pipeline.cluster.connect import dask_client
from pipeline.cluster.processes import STARTED_ANEW

# machines differ in speed, and fixtures here are either read only or made to be used again
unhurried = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]
settings.register_profile("swathe", deadline=None, print_blob=True, suppress_health_check=unhurried)
# CI judges a change by the same examples each time; everybody else keeps looking for new ones
settings.register_profile("ci", settings.get_profile("swathe"), derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "swathe")

# Dask's watch over the GIL (gilknocker, which Coiled brings) and tracemalloc, which tests of memory use, crash together
dask.config.set({"distributed.admin.system-monitor.gil.enabled": False})

# CI ends a run after its time is up, right or wrong: on a slow machine the last slow tests are skipped, by name
UNTIL = float(os.environ.get("SWATHE_TESTS_UNTIL", "inf"))  # seconds since 1970

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if time.time() > UNTIL:
        pytest.skip(f"the time for the tests is up: {item.nodeid}")


@pytest.fixture
def busy_machine() -> Iterator[None]:
    """A worker that a nanny starts anew may take longer than Dask allows."""
    with dask.config.set(STARTED_ANEW):
        yield


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Compiled networks and downloads of the tests go to a folder of their own."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWATHE_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def bundle_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Bundle]:
    """Give a small bundle by `helpers.metadata`'s arguments; equal arguments give the same one all session long."""
    made: dict[str, Bundle] = {}

    def give(architecture: str = "simple-unet", *, seed: int = 0, **changes: Any) -> Bundle:
        key = repr((architecture, seed, sorted(changes.items())))
        if key not in made:
            made[key] = save(tmp_path_factory.mktemp("bundle") / "b", metadata(architecture, **changes), seed)
        return made[key]

    return give


@pytest.fixture(scope="session")
def client() -> Iterator[Client]:
    """One Dask worker in this process for all tests, as `run` makes for itself."""
    with dask_client(None, 3) as made:
        yield made


@pytest.fixture
def threads() -> Iterator[None]:
    """Put torch's thread count back, which engines set for the whole process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One headless Chromium for a file of tests."""
    if CHROMIUM is None:
        pytest.skip("there is no chromium on this machine")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Any]]:
    """Open a page as some device would; at the end, nothing was asked of a network and nothing was complained of."""
    complaints: list[str] = []
    asked: list[str] = []
    files: list[str] = []
    contexts: list[Any] = []

    def open_page(file: Path, width: int = 1100, height: int = 900, **more: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": height}, **more)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(file.as_uri())
        files.append(file.as_uri())
        page.evaluate("Promise.all([...document.images].map((image) => image.decode()))")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []
    assert {url for url in asked if not url.startswith("data:")} == set(files)
