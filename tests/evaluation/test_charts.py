import pytest

from automl.evaluation.breakdown import Part
from automl.evaluation.charts import _describe_bound, draw_parts
from automl.evaluation.measures import Value


class Figures:
    """As much of an evaluation as the chart looks at."""

    metric = "auc"

    class Model:
        name = "one"

    models = (Model,)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"a": 0.889, "b": 1.0, "c": 0.9}, "one: auc from 0.889 (camera a) to 1.000 (camera b)."),
        ({"a": 0.889, "b": 1.0, "c": 0.99999}, "one: auc from 0.889 (camera a) to 1.000 (2 values: c, b)."),
        ({"a": 1.0, "b": 1.0}, "one: auc 1.000 (2 values: a, b)."),
        ({"a": 0.5}, "one: auc 0.500 (camera a)."),
        ({}, "No value can be measured."),
    ],
)
def test_the_sentence_names_all_values_that_share_an_end(values, sentence):
    parts = [Part(name, {"fake": 9}, "", (Value(value, None, None),), (1.0,)) for name, value in values.items()]
    assert draw_parts(Figures, "camera", parts).sentence == sentence


@pytest.mark.parametrize(
    ("score", "text"), [(0.001, "of less than 0.01"), (0.274, "above 0.27"), (0.9951, "above 0.99")]
)
def test_a_bound_that_two_digits_cannot_write_is_no_0_or_1(score, text):
    assert _describe_bound(score) == text
