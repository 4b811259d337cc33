"""The gallery as one picture."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from automl.gallery.pictures import Picture, Row, ViewGallery

_WIDTH, _MARGIN, _GAP = 1600, 16, 6
_TILE = 122  # pixels of a picture's longer side
_BLOCK = 4  # pictures in a line of a block; three blocks stand side by side
_ACROSS = 12
_SMALL, _PLAIN, _LARGE = 11, 15, 22  # sizes of letters
_LINES = 3  # of a caption
_PAPER, _INK, _DIM, _RULE = "#FFFFFF", "#222222", "#5A5A5A", "#D8D8D8"
_STEP = (_WIDTH - 2 * _MARGIN) // _ACROSS
_CAPTION = _LINES * (_SMALL + 3)


def draw_sheet(gallery: ViewGallery, title: str) -> Image.Image:
    """Draws a gallery: an RGB picture 1600 pixels wide, as high as it needs."""
    canvas = _Canvas()
    canvas.write_text(title, _LARGE)
    for section in gallery.sections:
        canvas.write_title(section.title, section.text)
        blocks: list[Row] = []
        for row in section.rows:
            if max(map(len, row.lines)) <= _BLOCK:
                blocks.append(row)
                continue
            canvas.draw_blocks(blocks)
            blocks = []
            pictures = [picture for line in row.lines for picture in line]
            lines = tuple(tuple(pictures[k : k + _ACROSS]) for k in range(0, len(pictures), _ACROSS))
            canvas.draw_blocks([Row(row.title, row.text, lines)])
        canvas.draw_blocks(blocks)
    return canvas.crop_image()


class _Canvas:
    """Paper that grows downwards."""

    def __init__(self) -> None:
        self._image = Image.new("RGB", (_WIDTH, 2000), _PAPER)
        self._top = _MARGIN

    def write_title(self, title: str, text: str) -> None:
        """Writes the title of a section below a line, and its text."""
        self._reserve(_LARGE)
        self._top += 10
        ImageDraw.Draw(self._image).line((_MARGIN, self._top, _WIDTH - _MARGIN, self._top), _RULE)
        self._top += 8
        self.write_text(title, _LARGE - 4)
        if text:
            self.write_text(text, _SMALL + 2, _DIM)

    def write_text(self, text: str, size: int, colour: str = _INK) -> None:
        """Writes a line of text."""
        self._reserve(2 * size)
        font = ImageFont.load_default(size)
        shown = _wrap_text(text, font, _WIDTH - 2 * _MARGIN, 1)
        ImageDraw.Draw(self._image).text((_MARGIN, self._top), "\n".join(shown), colour, font)
        self._top += size + 12

    def draw_blocks(self, blocks: Sequence[Row]) -> None:
        """Draws rows, three beside each other where they are narrow."""
        side_by_side = _ACROSS // _BLOCK if all(len(line) <= _BLOCK for row in blocks for line in row.lines) else 1
        for first in range(0, len(blocks), side_by_side):
            some = blocks[first : first + side_by_side]
            height = max(map(_measure_row, some))
            self._reserve(height)
            for number, row in enumerate(some):
                self._draw_row(row, _MARGIN + number * _BLOCK * _STEP)
            self._top += height

    def crop_image(self) -> Image.Image:
        """Returns what was drawn."""
        return self._image.crop((0, 0, _WIDTH, self._top + _MARGIN))

    def _reserve(self, height: int) -> None:
        """Makes the paper longer where it ends too soon."""
        if (need := self._top + height + 2 * _MARGIN) > self._image.height:
            longer = Image.new("RGB", (_WIDTH, 2 * need), _PAPER)
            longer.paste(self._image, (0, 0))
            self._image = longer

    def _draw_row(self, row: Row, left: int) -> None:
        """Draws a title, and below it the lines of pictures, each with its caption."""
        draw, small, plain = ImageDraw.Draw(self._image), ImageFont.load_default(_SMALL), ImageFont.load_default(_PLAIN)
        top = self._top
        if row.title:
            draw.text((left, top), "\n".join(_wrap_text(row.title, plain, _find_width(row), 1)), _INK, plain)
            top += _PLAIN + 5
        draw.text((left, top), "\n".join(_wrap_row_text(row)), _DIM, small, spacing=2)
        top = self._top + _head_height(row)
        for line in row.lines:
            for column, picture in enumerate(line):
                x = left + column * _STEP
                shown = _make_tile(picture)
                self._image.paste(shown, (x, top + _TILE - shown.height))
                caption = _wrap_text(picture.caption, small, _STEP - _GAP, _LINES)
                draw.text((x, top + _TILE + 3), "\n".join(caption), _INK, small, spacing=2)
            top += _TILE + _CAPTION + _GAP


def _measure_row(row: Row) -> int:
    """Returns the height of a row in pixels."""
    return _head_height(row) + len(row.lines) * (_TILE + _CAPTION + _GAP)


def _head_height(row: Row) -> int:
    """Returns the height of a row's title and text in pixels."""
    text = _wrap_row_text(row)
    return (_PLAIN + 5 if row.title else 0) + (len(text) * (_SMALL + 3) + 6 if text else 0)


def _wrap_row_text(row: Row) -> list[str]:
    """Breaks a row's text into lines."""
    return _wrap_text(row.text, ImageFont.load_default(_SMALL), _find_width(row), _LINES) if row.text else []


def _find_width(row: Row) -> int:
    """Returns the room for a row's title and text, in pixels."""
    narrow = max(map(len, row.lines)) <= _BLOCK
    return (_BLOCK if narrow else _ACROSS) * _STEP - 2 * _GAP


def _make_tile(picture: Picture) -> Image.Image:
    """Makes a picture as it is on the sheet; small ones are enlarged in plain blocks, which hides nothing."""
    image = Image.fromarray(picture.pixels)
    scale = _TILE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.NEAREST if scale >= 2 else Image.Resampling.BICUBIC)


def _wrap_text(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int, lines: int) -> list[str]:
    """Breaks a text into lines of a width in pixels; what does not fit is cut off, and a sign says so."""
    wrapped, words = [""], text.split()
    for word in words:
        longer = f"{wrapped[-1]} {word}".strip()
        if font.getlength(longer) <= width or not wrapped[-1]:
            wrapped[-1] = longer
        else:
            wrapped.append(word)
    shown = [_cut_text(line, font, width) for line in wrapped[:lines]]
    if len(wrapped) > lines:
        shown[-1] = _cut_text(f"{wrapped[lines - 1]} …", font, width)
    return shown


def _cut_text(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """Cuts a text in its middle where it is wider than there is room: the end of a file's name tells most."""
    if font.getlength(text) <= width:
        return text
    kept = len(text) - 1
    while kept > 2 and font.getlength(_keep_ends(text, kept)) > width:
        kept -= 1
    return _keep_ends(text, kept)


def _keep_ends(text: str, kept: int) -> str:
    """Returns the first and the last letters of a text, so many in all."""
    return f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]}"
