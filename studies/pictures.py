"""Makes the pictures of the pages, docs/images/, from the embedded demo: real runs, free photographs, no download.

    python studies/pictures.py
    python studies/pictures.py --work runs/pictures        (keeps the runs; called again, it draws them anew)

- `terminal.svg`: what `automl search` wrote to a terminal, at nine moments that follow each other;
- `report.png`: the top of the report that the search ended with;
- `gallery.webp`: some of the rows that `automl preview` shows of the space `image`;
- `heat-maps.webp`: `automl inspect` of those pictures of the holdout of which only a part was forged: the nine that
  a small network, trained on the rest of the demo, is most sure of.

Needs Chromium and playwright (the dev extra), and 11 minutes of two cores, 9 of them the search.
"""

import argparse
import codecs
import csv
import fcntl
import io
import json
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from PIL import Image
from rich.console import Console
from rich.style import Style
from rich.terminal_theme import TerminalTheme
from rich.text import Text

PROJECT = Path(__file__).parents[1]
IMAGES = PROJECT / "docs" / "images"
SEARCH = "automl search --gpu-mem 16GB --trials 50"
COLUMNS, ROWS = 100, 28
MOMENTS = 8
"""Of the running search; the ninth is its end."""
MOMENT_SECONDS, LAST_SECONDS = 1.5, 6.0
CELL, LINE, MARGIN = 8.4, 19, 14
"""Width and height of a letter's cell and the empty edge, in units of the SVG."""
GREY, WHITE, BLACK = (139, 148, 158), (230, 237, 243), (22, 27, 34)
RED, GREEN, YELLOW, BLUE, PINK = (255, 123, 114), (63, 185, 80), (230, 159, 0), (86, 180, 233), (204, 121, 167)
THEME = TerminalTheme(BLACK, WHITE, [GREY, RED, GREEN, YELLOW, BLUE, PINK, BLUE, WHITE])
"""On a dark ground, which stands out on a white page and on a black one."""
FONTS = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono','Liberation Mono',monospace"

RECIPE = """
backbone: test_resnet.r160_in1k
pretrained: false
image_size: 64
augmentation: {crop: {name: resize}, horizontal_flip: 0.5}
learning_rate: 0.005
weight_decay: 0.01
epochs: 8.0
batch_size: 32
seed: 0
"""
"""Of the network whose heat maps are shown. The winner may be of any backbone, and once it is confirmed `automl train`
learns from the holdout too."""

GALLERY_ROWS = ("affine: random", "downscale", "mixup", "cutmix")
KEEP_ROWS = """async wanted => {
    let before = [];
    for (const part of [...document.body.children]) {
        before.push(part);
        if (!part.matches('.rows')) continue;
        for (const row of [...part.children])
            if (!wanted.includes(row.querySelector('h3')?.textContent)) row.remove();
        if (!part.children.length) before.forEach(one => one.remove());
        before = [];
    }
    before.forEach(one => one.remove());
    [...document.images].forEach(image => image.loading = 'eager');
    await Promise.all([...document.images].map(image => image.decode()));
    return document.body.lastElementChild.getBoundingClientRect().bottom;
}"""
"""Removes what is not wanted of a gallery."""
FIND_END = "selector => document.querySelector(selector).getBoundingClientRect().bottom"
PAGES = {
    "report.png": ("runs/demo/report.html", 1000, FIND_END, "figure"),
    "gallery.webp": ("gallery/preview.html", 1120, KEEP_ROWS, GALLERY_ROWS),
    "heat-maps.webp": ("maps/inspect.html", 1000, FIND_END, "ul.tiles"),
}
"""Page, width of the window, and what returns where the part ends that is shown, with its argument."""

Recording = list[tuple[float, str]]
"""(seconds since the command, what was written)"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line and makes the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="folder of the runs; what it has already is not run again")
    parser.add_argument("--out", type=Path, default=IMAGES)
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="automl-pictures-") as temporary:
        work = (given.work or Path(temporary)).absolute()
        work.mkdir(parents=True, exist_ok=True)
        make_pictures(work, given.out)


def make_pictures(work: Path, out: Path) -> None:
    """Runs the commands whose results a folder has not yet, and draws them."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("needs a browser: apt-get install chromium")
    make_gallery(work)  # first: it makes the demo, so that the recorded search need not
    recording = work / "recording.json"
    if not recording.is_file():
        shutil.rmtree(work / "runs", ignore_errors=True)
        recording.write_text(json.dumps(record_command(SEARCH, work)), encoding="utf-8")
    make_heat_maps(work)
    recorded = json.loads(recording.read_text(encoding="utf-8"))
    (out / "terminal.svg").write_text(draw_recording(SEARCH, recorded), encoding="utf-8")
    photograph_pages(chromium, work, out)
    for file in sorted(out.iterdir()):
        print(f"{file}: {file.stat().st_size / 1000:.0f} kB")


# --- the terminal -----------------------------------------------------------------------------------------------


def make_environment(work: Path) -> dict[str, str]:
    """Returns the variables of a command: this checkout, and a cache of its own."""
    path = os.pathsep.join(filter(None, (str(PROJECT), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "AUTOML_CACHE": str(work / "cache"), "PYTHONPATH": path, "TERM": "xterm-256color"}


def record_command(command: str, work: Path) -> Recording:
    """Runs a command in a terminal of its own and records what it writes; it must end well."""
    master, slave = pty.openpty()
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    environment = make_environment(work)
    for name in ("COLUMNS", "LINES", "NO_COLOR"):
        environment.pop(name, None)
    words = [sys.executable, "-m", *command.split()]
    process = subprocess.Popen(words, cwd=work, env=environment, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    began, recording = time.monotonic(), []
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    while data := read_terminal(master):
        recording.append((time.monotonic() - began, decoder.decode(data)))
    os.close(master)
    if process.wait():
        raise SystemExit(f"{command} ended with code {process.returncode}:\n{''.join(text for _, text in recording)}")
    return recording


def read_terminal(master: int) -> bytes:
    """Reads what was written; empty when the process has ended."""
    try:
        return os.read(master, 1 << 16)
    except OSError:  # Linux's answer to a terminal that nobody has open any more
        return b""


class Screen:
    """Lines of a terminal with their colours, as the few codes that rich writes change them; none is forgotten."""

    def __init__(self) -> None:
        self.lines, self.row, self.replace, self.rest = [""], 0, False, ""

    def feed(self, text: str) -> None:
        """Takes what is written."""
        text, self.rest = self.rest + text, ""
        for code in re.finditer(
            r"(?P<colour>\x1b\[[\d;]*m)|\x1b\[\??(?P<count>\d*)(?P<kind>[A-Za-z])|\x1b.*$|[^\x1b]", text
        ):
            if code["kind"] == "A":
                self.row = max(0, self.row - int(code["count"] or 1))
            elif code["kind"] == "K":
                self.lines[self.row] = ""
            elif code["kind"]:
                continue  # the cursor is hidden or shown
            elif code[0] == "\r":
                self.replace = True
            elif code[0] == "\n":
                self.row, self.replace = self.row + 1, False
                self.lines += [""] * (self.row + 1 - len(self.lines))
            elif code["colour"] or not code[0].startswith("\x1b"):
                self.lines[self.row] = ("" if self.replace else self.lines[self.row]) + code[0]
                self.replace = False
            else:
                self.rest = code[0]  # the other half comes with the next piece

    def read_rows(self) -> list[Text]:
        """Returns the rows that are to be seen: long lines are broken, and the first ones have gone up."""
        lines = self.lines[:-1] if not self.lines[-1] else self.lines
        rows = [row for line in lines for row in break_line(Text.from_ansi(line))]
        return rows[-ROWS:]


def break_line(line: Text) -> list[Text]:
    """Breaks a line as a terminal does, at its last column."""
    return list(line.divide(range(COLUMNS, max(COLUMNS, len(line)), COLUMNS))) or [line]


def draw_recording(command: str, recording: Recording) -> str:
    """Draws a recording as an SVG whose frames follow each other; where nothing moves, the last one is seen."""
    frames = pick_moments(f"$ {command}\n", recording)
    total = MOMENT_SECONDS * MOMENTS + LAST_SECONDS
    width, height = 2 * MARGIN + COLUMNS * CELL, 2 * MARGIN + ROWS * LINE
    styles, groups = [], []
    for number, rows in enumerate(frames):
        begin, end = (100 * MOMENT_SECONDS * k / total for k in (number, number + 1))
        last = number == MOMENTS
        hidden_first = "" if last else ' visibility="hidden"'
        hidden = "hidden" if begin else "visible"
        steps = f"0%{{visibility:{hidden}}}{begin:.2f}%{{visibility:visible}}"
        steps += "" if last else f"{end:.2f}%{{visibility:hidden}}"
        styles.append(f"@keyframes f{number}{{{steps}}}.f{number}{{animation:f{number} {total}s step-end infinite}}")
        body = "".join(draw_row(row, MARGIN + (k + 0.75) * LINE) for k, row in enumerate(rows))
        groups.append(f'<g class="f{number}"{hidden_first}>{body}</g>\n')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img" '
        f'font-family="{FONTS}" font-size="14" fill="{THEME.foreground_color.hex}">'
        f"<title>{escape(command)}</title>\n<style>text{{white-space:pre}}{''.join(styles)}"
        f"@media(prefers-reduced-motion:reduce){{g{{animation:none!important}}}}</style>\n"
        f'<rect width="100%" height="100%" rx="8" fill="{THEME.background_color.hex}"/>\n{"".join(groups)}</svg>\n'
    )


def pick_moments(start: str, recording: Recording) -> list[list[Text]]:
    """Returns what was on the screen at moments that lie evenly between the command and its end, and at the end."""
    screen, frames = Screen(), []
    screen.feed(start)
    for seconds, text in recording:
        while len(frames) < MOMENTS and seconds > (len(frames) + 0.4) / MOMENTS * recording[-1][0]:
            frames.append(screen.read_rows())
        screen.feed(text)
    return [*frames, screen.read_rows()]


def draw_row(row: Text, y: float) -> str:
    """Draws a row; each piece of one colour has its own columns, so that any fixed-width font fits."""
    parts, column = [], 0
    for segment in row.render(Console(width=COLUMNS), end=""):
        text, style = segment.text.strip(), segment.style or Style()
        if text:
            marks = {
                "x": f"{MARGIN + CELL * (column + segment.text.index(text)):.5g}",
                "y": f"{y:g}",
                "textLength": f"{CELL * len(text):.5g}",
                "lengthAdjust": "spacingAndGlyphs",
                "fill": style.color and style.color.get_truecolor(THEME).hex,
                "font-weight": style.bold and "bold",
                "opacity": style.dim and 0.6,
            }
            written = "".join(f' {name}="{value}"' for name, value in marks.items() if value)
            parts.append(f"<text{written}>{escape(text)}</text>")
        column += len(segment.text)
    return "".join(parts)


# --- the pages --------------------------------------------------------------------------------------------------


def run_command(command: str, work: Path) -> None:
    """Runs a command of automl in a folder; it must end well."""
    print(f"$ {command}", flush=True)
    subprocess.run([sys.executable, "-m", *command.split()], cwd=work, env=make_environment(work), check=True)


def make_gallery(work: Path) -> None:
    """Writes the gallery, unless it is there."""
    if not (work / "gallery" / "preview.html").is_file():
        run_command("automl preview --space image --seed 1 --samples 8 --out gallery", work)


def make_heat_maps(work: Path) -> None:
    """Trains a network without the holdout, and maps the holdout's forgeries, unless that was done."""
    if (work / "maps" / "inspect.html").is_file():
        return
    with (work / "runs" / "demo" / "samples.csv").open(encoding="utf-8", newline="") as file:
        samples = list(csv.DictReader(file))
    (work / "holdout").mkdir(exist_ok=True)
    with (work / "learn.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "label", "group"])
        for sample in samples:
            if sample["split"] != "holdout":
                writer.writerow([sample["path"], sample["name"].partition("/")[0], sample["group"]])
            elif sample["name"].endswith("-swap.png"):
                shutil.copy(sample["path"], work / "holdout")
    (work / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    run_command("automl train --recipe recipe.yaml --data learn.csv --holdout-fraction 0 --out model --overwrite", work)
    run_command("automl inspect holdout --model model --most 9 --out maps", work)


def photograph_pages(chromium: str, work: Path, out: Path) -> None:
    """Writes what Chromium shows of the pages, light, as a screen shows it on which a pixel is one and a half wide."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, (source, width, find_end, argument) in PAGES.items():
            context = browser.new_context(viewport={"width": width, "height": 900}, device_scale_factor=1.5)
            page = context.new_page()
            page.goto((work / source).as_uri())
            if source.endswith("report.html"):
                page.wait_for_selector("html[data-drawn=all]", timeout=60_000)
            end = page.evaluate(find_end, argument) + 8
            data = page.screenshot(full_page=True, clip={"x": 0, "y": 0, "width": width, "height": end})
            save_small(Image.open(io.BytesIO(data)).convert("RGB"), out / name)
            context.close()


def save_small(image: Image.Image, file: Path) -> None:
    """Saves lines and letters as a PNG of a few colours, and photographs as WebP."""
    if file.suffix == ".png":
        image.quantize(64, dither=Image.Dither.NONE).save(file, optimize=True)
    else:
        image.save(file, quality=75, method=6)


if __name__ == "__main__":
    main()
