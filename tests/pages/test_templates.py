import pytest

from automl.pages.figures import Chart, make_figure, make_line
from automl.pages.templates import render_template

PAGE = """{% from "figures.html.jinja" import draw, load_figures with context %}
<!DOCTYPE html><html lang="en"><head>{% include "page_head.html.jinja" %}<title>t</title></head>
<body><h1>{{ name }}</h1>{% for chart in charts %}{{ draw(chart) }}{% endfor %}{{ load_figures() }}</body></html>
"""


@pytest.fixture
def page(tmp_path):
    charts = []
    for number in range(2):
        figure = make_figure("epoch", "auc")
        figure.add_trace(make_line(number, "a </script><b>name", x=[0, 1], y=[0.5, 0.9]))
        charts.append(Chart(f"Curve {number}", f"Figure {number} rises.", figure))
    template = tmp_path / "page.jinja"
    template.write_text(PAGE)
    path = tmp_path / "page.html"
    path.write_text(render_template(template, charts=charts, name="<i>x</i> \udcff"))
    return path


def test_what_is_put_in_is_escaped_and_the_page_is_small(page):
    text = page.read_text()
    assert "<h1>&lt;i&gt;x&lt;/i&gt; ?</h1>" in text
    assert "<b>name" not in text
    assert len(text) < 2.5e6


def test_a_browser_draws_every_figure_and_fetches_nothing(page, browser):
    for how in ({}, {"dark": True}, {"width": 390}):
        with browser(page, **how) as opened:
            opened.wait_for_figures()
            assert opened.page.locator("figure .main-svg").count() >= 2
            assert opened.errors == []
            assert opened.requests == []
            wide = opened.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert wide <= 0
            assert opened.find_faint_texts() == []


def test_faint_text_is_found(tmp_path, browser):
    path = tmp_path / "page.html"
    path.write_text('<!DOCTYPE html><p style="color: #999">pale</p><p style="background: #333; color: #eee">clear</p>')
    with browser(path) as opened:
        assert opened.find_faint_texts() == ["pale: 2.8"]
