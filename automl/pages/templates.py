"""The templates of pages; `page_head.html.jinja` is what they share, `figures.html.jinja` draws their figures."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from automl.pages.figures import figure_json
from automl.pages.plotly_script import compress_plotly


def render_template(template: Path, /, **values: Any) -> str:
    """Makes the text of a page; what is put in is escaped unless the template says that it is HTML.

    Args:
        template: A file, which may include those of this package.
        **values: What it names; and besides it may name `compress_plotly` and `figure_json`.
    """
    environment = Environment(
        loader=FileSystemLoader([template.parent, Path(__file__).parent], encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"compress_plotly": compress_plotly, "figure_json": figure_json}
    text = environment.get_template(template.name).render(values)
    return text.encode("utf-8", errors="replace").decode("utf-8")  # names of files need not be text
