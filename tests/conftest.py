import os
from pathlib import Path

# One thread each, also for the processes that tests start: the test processes share the cores already, and PyTorch's
# threads wait by spinning. With two by two on two cores the tests took four times as long. Before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

# A loaded machine is slow, which is no failure; and CI shall not fail on what a change did not touch.
settings.register_profile("automl", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "automl")

pytest_plugins = [
    "tests.fixtures.clip_kinds",
    "tests.fixtures.models",
    "tests.fixtures.studies",
    "tests.fixtures.replicates",
    "tests.fixtures.clips_study",
    "tests.fixtures.browser",
    "tests.fixtures.postgres",
]

SHARED = Path(__file__).parents[2] / "shared"


def pytest_configure(config):
    """Plain `pytest` leaves the slow tests out; who names a path gets all that is there."""
    if config.args_source is pytest.Config.ArgsSource.TESTPATHS and not config.option.markexpr:
        config.option.markexpr = "not slow"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    """No test reads or writes the user's cache."""
    monkeypatch.setenv("AUTOML_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def shared():
    """The research data beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip("needs the research data in ../shared, which is not here")
    return SHARED
