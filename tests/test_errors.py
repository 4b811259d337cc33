import pytest

from automl import errors

NAMES = sorted(name for name, value in vars(errors).items() if getattr(value, "__module__", "") == errors.__name__)
NAMES = [name for name in NAMES if isinstance(getattr(errors, name), type)]


@pytest.mark.parametrize("name", NAMES)
def test_every_error_can_be_caught_as_one_and_has_its_meaning_below_it(name):
    error = getattr(errors, name)
    assert issubclass(error, errors.AutomlError)
    assert error.__dict__["__doc__"].endswith(".")
    assert str(error("16GB is too much")) == "16GB is too much"


def test_a_misspelt_name_is_answered_with_the_nearest_or_nothing():
    assert errors.suggest_name("Learning_Rat", ["learning_rate", "epochs"]) == "; did you mean 'learning_rate'?"
    assert errors.suggest_name("zzz", ["learning_rate", "epochs"]) == ""
    with pytest.raises(errors.SpecError, match=r"unknown board 'scetch'; valid, nearest first: sketch, a"):
        errors.check_name("board", "scetch", ["a", "sketch"])


def test_a_long_list_is_shortened_and_counted():
    assert errors.shorten(["a", "b"]) == "a, b"
    assert errors.shorten(list("abcdefg")) == "a, b, c, d, e and 2 more"
    assert errors.shorten(list("abc"), 1, " = ") == "a and 2 more"


def test_an_error_is_named_by_its_first_line_or_its_type():
    assert errors.first_line(ValueError("\nno such file\nmore")) == "no such file"
    assert errors.first_line(KeyboardInterrupt()) == "KeyboardInterrupt"
