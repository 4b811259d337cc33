import re
from xml.etree import ElementTree

import numpy as np
import pytest

from automl.dashboard.charts import Line, draw_confusion, draw_lines

SVG = "{http://www.w3.org/2000/svg}"


def read_svg(text):
    """Parses a chart; returns its root and all texts."""
    root = ElementTree.fromstring(text)
    return root, [element.text for element in root.iter(f"{SVG}text")]


def points_of(root):
    lines = [element.get("points") for element in root.iter(f"{SVG}polyline")]
    return [[tuple(map(float, point.split(","))) for point in line.split()] for line in lines]


def test_lines_lie_where_their_values_are():
    root, texts = read_svg(
        draw_lines("a & b", "epochs", "auc", [Line("<one>", [0, 1, 2], [0.5, 0.7, 0.6], marked=True)])
    )
    [[first, second, third]] = points_of(root)
    assert first[0] < second[0] < third[0]
    assert second[1] < third[1] < first[1]  # higher values are further up
    assert {"a & b", "epochs", "auc", "<one>"} <= set(texts)
    assert len(list(root.iter(f"{SVG}circle"))) == 3


def test_a_logarithmic_axis_has_a_tick_at_each_power():
    root, texts = read_svg(draw_lines("roc", "fpr", "tpr", [Line("all", [0.002, 0.02, 1], [0, 0.5, 1])], x_log=True))
    assert {"0.01", "0.1", "1"} <= set(texts)
    [[first, second, third]] = points_of(root)
    assert (second[0] - first[0]) / (third[0] - first[0]) == pytest.approx(np.log(10) / np.log(500), abs=0.01)


def test_one_point_has_axes():
    _, texts = read_svg(draw_lines("one", "x", "y", [Line("a", [1.5], [0.9])]))
    assert "nan" not in "".join(texts)
    assert len([text for text in texts if re.fullmatch(r"-?\d+(\.\d+)?", text)]) > 4


def test_a_confusion_matrix_shades_by_row():
    root, texts = read_svg(draw_confusion("matrix", ["real", "a very long name"], np.array([[9, 1], [0, 0]])))
    shades = [rect.get("fill-opacity") for rect in root.iter(f"{SVG}rect") if rect.get("fill-opacity")]
    assert shades == ["0.9", "0.1", "0.0", "0.0"]
    assert {"9", "1", "0", "a very lon…"} <= set(texts)
