import re

import pytest

from automl import errors

NAMES = sorted(name for name, value in vars(errors).items() if isinstance(value, type))


@pytest.mark.parametrize("name", NAMES)
def test_every_error_can_be_caught_as_one_and_is_in_the_tree(name):
    error = getattr(errors, name)
    assert issubclass(error, errors.AutomlError)
    assert re.search(rf"^(├── |└── )?{name}\b", errors.__doc__, re.MULTILINE)
    assert str(error("16GB is too much")) == "16GB is too much"
