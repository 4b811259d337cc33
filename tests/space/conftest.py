import pytest

from automl.space.space import Space, load_space, parse_space
from tests.fixtures.spaces import SMALL


@pytest.fixture(scope="package")
def image() -> Space:
    return load_space("image")


@pytest.fixture
def small() -> Space:
    return parse_space(SMALL)
