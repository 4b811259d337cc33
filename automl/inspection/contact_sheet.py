"""The contact sheet of a clip: its frames with the faces in them, then the faces alone."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from automl.inspection.clip import Curve, Pictures, TimeUnit

_WIDTH = 1600
_FRAME_SIDE, _FACE_SIDE = 190, 114  # longer side of a picture on the sheet
_GAP, _LINE = 8, 22
# Okabe & Ito's colours, which colour-blind people can tell apart
_MAIN, _OTHER, _UNUSUAL = "#F0E442", "#56B4E9", "#D55E00"
_PAPER, _INK = "#FFFFFF", "#222222"


def draw_contact_sheet(pictures: Pictures, unit: TimeUnit) -> Image.Image:
    """Draws the contact sheet: an RGB picture 1600 pixels wide, as high as its frames need."""
    frames = [_draw_frame(pictures, position) for position in range(len(pictures.frames))]
    times = [unit.format_time(time) for time in pictures.frames.times_seconds.tolist()]
    title = "Frames. Orange rim: unusually like or unlike the one before."
    faces = [_make_thumbnail(face, _FACE_SIDE) for face in pictures.faces if face is not None]
    if faces:
        title += " Thick yellow box: the face that is compared; thin blue: others."
    parts = [_make_grid(frames, times, _mark_unusual(pictures.frame_curve), title)]
    if faces:
        seen = [position for position, face in enumerate(pictures.faces) if face is not None]
        marks = _mark_unusual(pictures.face_curve)
        title = "The face that is compared, turned upright. Orange rim: unusually like or unlike the one before."
        parts.append(_make_grid(faces, [times[each] for each in seen], [marks[each] for each in seen], title))
    sheet = Image.new("RGB", (_WIDTH, sum(part.height for part in parts) + _GAP), _PAPER)
    top = 0
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height
    return sheet


def _mark_unusual(curve: Curve) -> list[bool]:
    """Returns whether each picture is unusual; the first has none before it."""
    return [False, *curve.unusual.tolist()]


def _draw_frame(pictures: Pictures, position: int) -> Image.Image:
    """Draws a frame as it is on the sheet, with the boxes of its faces."""
    pixels = pictures.frames.pixels[position]
    image = _make_thumbnail(pixels, _FRAME_SIDE)
    scale = image.width / pixels.shape[1]
    draw = ImageDraw.Draw(image)
    for number, track in reversed(list(enumerate(pictures.tracks))):  # the compared one on top
        if position in track.faces:
            colour, width = (_OTHER, 1) if number else (_MAIN, 2)
            left, top, right, bottom = (side * scale for side in track.faces[position].box())
            rim = (left - 1, top - 1, right + 1, bottom + 1)  # dark, so that the box shows on any picture
            draw.rectangle(rim, outline=_INK, width=width + 2)
            draw.rectangle((left, top, right, bottom), outline=colour, width=width)
    return image


def _make_thumbnail(pixels: npt.NDArray[np.uint8], side: int) -> Image.Image:
    """Makes a picture whose longer side is `side` pixels."""
    image = Image.fromarray(pixels)
    scale = side / max(image.size)
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))


def _make_grid(images: Sequence[Image.Image], texts: Sequence[str], marks: Sequence[bool], title: str) -> Image.Image:
    """Puts pictures of one size in rows, with a text below each; marked ones have a rim."""
    width, height = images[0].width + _GAP, images[0].height + _GAP + _LINE
    across = max(1, (_WIDTH - _GAP) // width)
    rows = -(-len(images) // across)
    grid = Image.new("RGB", (_WIDTH, _GAP + _LINE + _GAP + rows * height), _PAPER)
    draw, font = ImageDraw.Draw(grid), ImageFont.load_default(16)
    draw.text((_GAP, _GAP), title, _INK, font)
    for number, (image, text, marked) in enumerate(zip(images, texts, marks, strict=True)):
        row, column = divmod(number, across)
        left, top = _GAP + column * width, _GAP + _LINE + _GAP + row * height
        if marked:
            rim = (left - 4, top - 4, left + image.width + 3, top + image.height + 3)
            draw.rectangle(rim, fill=_UNUSUAL)
        grid.paste(image, (left, top))
        draw.text((left, top + image.height + 3), f"{text}  unusual" if marked else text, _INK, font)
    return grid
