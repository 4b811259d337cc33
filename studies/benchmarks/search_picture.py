"""Draws docs/search.svg: the best validation AUC over minutes, from the table in docs/figures.md.

    python studies/benchmarks/search_picture.py

A line is flat between two measured minutes: the best so far is at least what it was at the last of them. The colours
are of middle brightness and there is no background, so that the picture can be read on white and on black. Only the
standard library is needed.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

DOCS = Path(__file__).parents[2] / "docs"
WIDTH, HEIGHT = 800, 430
LEFT, RIGHT, TOP, BOTTOM = 52, 780, 62, 372
"""Edges of the plot."""
NAMES = 400, 122
"""Upper left corner of the lines' names, where there are no lines."""
LOWEST, HIGHEST, STEP = 0.5, 1.0, 0.05
LAST_MINUTE = 20
TEXT = "#7a7a7a"
COLOURS = {"automl": "#2f81f7", "AutoGluon": "#d9730d", "a plain": "#8b949e", "one recipe": "#a371f7"}
"""By how the name of a row begins."""
DASHES = ("none", "7 5", "2 4", "12 3 2 3")
"""Of the first to the fourth row of one colour."""

Curve = list[tuple[int, float]]
"""(minute, best AUC so far)"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figures", type=Path, default=DOCS / "figures.md", help="page that holds the table")
    parser.add_argument("--out", type=Path, default=DOCS / "search.svg")
    given = parser.parse_args(arguments)
    given.out.write_text(draw(read_curves(given.figures.read_text(encoding="utf-8"))), encoding="utf-8")


def read_curves(page: str) -> dict[str, Curve]:
    """Reads the table whose first cell is `minutes`; empty cells were not measured."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("|")]
    start = next((number for number, row in enumerate(rows) if row[0] == "minutes"), None)
    if start is None:
        raise SystemExit("no table whose first cell is `minutes`")
    minutes = [int(cell) for cell in rows[start][1:]]
    curves: dict[str, Curve] = {}
    for name, *cells in rows[start + 2 :]:
        if not any(name.startswith(known) for known in COLOURS):
            break
        curves[name] = [(minute, float(cell)) for minute, cell in zip(minutes, cells, strict=True) if cell]
    return curves


def draw(curves: dict[str, Curve]) -> str:
    """Returns the SVG."""
    seen: dict[str, int] = {}
    parts = [draw_axes()]
    for number, (name, curve) in enumerate(curves.items()):
        known = next(known for known in COLOURS if name.startswith(known))
        stroke = f'stroke="{COLOURS[known]}" stroke-width="2.5" stroke-dasharray="{DASHES[seen.get(known, 0)]}"'
        seen[known] = seen.get(known, 0) + 1
        parts.append(draw_curve(curve, stroke, COLOURS[known]))
        parts.append(draw_name(number, name, curve, stroke, COLOURS[known]))
    title = "Best validation AUC found so far"
    subtitle = "1,040 real and StyleGAN faces, four backbones with ImageNet weights, two CPU cores, start-up included"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
            'font-family="system-ui, Helvetica, Arial, sans-serif" role="img">',
            f"<title>{title}: {subtitle}</title>",
            write_text(LEFT, 22, title, size=17, weight="bold"),
            write_text(LEFT, 42, subtitle, size=13),
            *parts,
            "</svg>\n",
        ]
    )


def draw_axes() -> str:
    """Returns the grid, its numbers and the name of the horizontal axis."""
    parts = []
    for number in range(round((HIGHEST - LOWEST) / STEP) + 1):
        auc = LOWEST + number * STEP
        parts.append(f'<path d="M{LEFT} {y_of(auc)}H{RIGHT}" stroke="{TEXT}" stroke-opacity=".3"/>')
        parts.append(write_text(LEFT - 10, y_of(auc) + 4, f"{auc:.2f}", anchor="end"))
    for minute in range(0, LAST_MINUTE + 1, 5):
        parts.append(write_text(x_of(minute), BOTTOM + 20, str(minute), anchor="middle"))
    parts.append(write_text((LEFT + RIGHT) / 2, BOTTOM + 44, "minutes since the start", anchor="middle"))
    return "\n".join(parts)


def draw_curve(curve: Curve, stroke: str, colour: str) -> str:
    """Returns a line of steps, with a dot where it was measured."""
    steps = f"M{x_of(curve[0][0])} {y_of(curve[0][1])}"
    steps += "".join(f"H{x_of(minute)}V{y_of(auc)}" for minute, auc in curve[1:])
    dots = [f'<circle cx="{x_of(minute)}" cy="{y_of(auc)}" r="4" fill="{colour}"/>' for minute, auc in curve]
    return "\n".join([f'<path d="{steps}" fill="none" {stroke}/>', *dots])


def draw_name(number: int, name: str, curve: Curve, stroke: str, colour: str) -> str:
    """Returns a row of the legend: a piece of the line, its name, and what it came to."""
    x, y = NAMES[0], NAMES[1] + 17 * number
    minute, auc = curve[-1]
    text = f"{name}: {auc:.3f} at {minute} min"
    line = f'<path d="M{x} {y}h34" {stroke}/><circle cx="{x + 17}" cy="{y}" r="4" fill="{colour}"/>'
    return line + "\n" + write_text(x + 44, y + 4.5, text)


def write_text(
    x: float, y: float, text: str, *, size: int = 13, anchor: str = "start", colour: str = TEXT, weight: str = "normal"
) -> str:
    """Returns a line of text."""
    style = f'font-size="{size}" text-anchor="{anchor}" fill="{colour}" font-weight="{weight}"'
    return f'<text x="{x}" y="{y}" {style}>{escape(text)}</text>'


def x_of(minute: float) -> float:
    """Converts a minute to pixels."""
    return round(LEFT + (RIGHT - LEFT) * minute / LAST_MINUTE, 1)


def y_of(auc: float) -> float:
    """Converts an AUC to pixels."""
    return round(BOTTOM - (BOTTOM - TOP) * (auc - LOWEST) / (HIGHEST - LOWEST), 1)


if __name__ == "__main__":
    main()
