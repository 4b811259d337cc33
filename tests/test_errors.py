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


def test_the_nearest_of_many_valid_names_are_shown_and_the_others_counted():
    with pytest.raises(errors.SpecError, match=r"nearest first: name19, .* and 10 more$"):
        errors.check_name("name", "name19x", [f"name{number}" for number in range(20)])


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("resnett50", ["resnet50", "resnet50d"]),
        ("Convnext_Tinyy*", ["convnext_tiny", "convnextv2_tiny"]),
        ("vgg_huge", ["vgg16"]),  # and no davit_huge
        ("efficientnetb0", ["efficientnet_b0"]),
        ("convnxt", ["convnext_tiny", "convnextv2_tiny"]),
        ("xresnet5o", ["resnet50", "resnet50d"]),
        ("resnet", ["resnet50", "resnet50d"]),
        ("dinov4", []),  # and no inception_v4
        ("squeezenet", []),  # and no seresnet50
        ("nonsense_9000", []),
        ("", []),
    ],
)
def test_near_names_are_of_the_same_family_or_nearly_the_same(name, near):
    valid = ["resnet50", "resnet50d", "seresnet50", "convnext_tiny", "convnextv2_tiny", "vgg16", "davit_huge"]
    valid += ["efficientnet_b0", "inception_v4", "semnasnet_100"]
    assert errors.find_near_names(name, valid) == near


def test_a_long_list_is_shortened_and_counted():
    assert errors.shorten(["a", "b"]) == "a, b"
    assert errors.shorten(list("abcdefg")) == "a, b, c, d, e and 2 more"
    assert errors.shorten(list("abc"), 1, " = ") == "a and 2 more"


def test_an_error_is_named_by_its_first_line_or_its_type():
    assert errors.first_line(ValueError("\nno such file\nmore")) == "no such file"
    assert errors.first_line(KeyboardInterrupt()) == "KeyboardInterrupt"
