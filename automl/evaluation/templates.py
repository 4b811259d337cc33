"""The templates of pages that open without a network; `page_head.html.jinja` is what they share."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def render_template(name: str, /, **values: Any) -> str:
    """Makes the text of a page; what is put in is escaped unless the template says that it is HTML."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent, encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template(name).render(values)
    return text.encode("utf-8", errors="replace").decode("utf-8")  # names of files need not be text
