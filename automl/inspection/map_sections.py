"""Heat maps as parts of a page: pictures beside their maps, and spectrograms with their axes."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from automl.inspection.clip import TimeUnit
from automl.inspection.file_maps import PictureMaps, RankedFile, ViewMaps
from automl.inspection.heat_maps import Heat, draw_heat_map
from automl.media.opening import require
from automl.pages.figures import Chart, make_figure
from automl.pages.pictures import encode_picture
from automl.views.audio_features import FEATURES
from automl.views.mel import Mel
from automl.views.sound_parts import SoundView

_TILE_SIDE = 256  # pixels of the long side of a picture among many
_PANEL = 250  # pixels of height
_RIM = "#56B4E9"
_TICKS_HZ = (250, 500, 1000, 2000, 4000, 8000, 16_000)


@dataclass(frozen=True)
class Shown:
    """A picture on a page: what it is, and its data."""

    label: str
    text: str
    """What it shows, for who cannot see it."""
    data: str
    """A data URI."""


@dataclass(frozen=True)
class Tile:
    """Pictures side by side, and what stands below them."""

    caption: str
    pictures: tuple[Shown, ...]


@dataclass(frozen=True)
class MapSection:
    """What a page shows of one view: tiles, or figures of sound."""

    title: str
    sentences: tuple[str, ...]
    tiles: tuple[Tile, ...]
    charts: tuple[Chart, ...]
    checked: bool
    """Whether there are occlusion maps."""


def make_section(view: ViewMaps, class_name: str, unit: TimeUnit | None) -> MapSection:
    """Makes what a page shows of one view; `unit` is that of a clip's times, None of an image file."""
    sentences = [f"{problem[0].upper()}{problem[1:]}." for problem in view.problems]
    if len(view.pictures) < view.all_pictures:
        sentences.append(
            f"{len(view.pictures)} of {view.all_pictures} pictures have maps, those with the highest probability."
        )
    if view.pictures:
        sentences.append(describe_agreement(view.pictures))
        if _area(view.pictures[0].seen) < 0.999:
            sentences.append("What lies outside the blue rim was cut off before the network saw the picture.")
    charts, tiles = [], []
    for picture in view.pictures:
        if isinstance(view.view, SoundView) and unit is not None:
            charts.append(_draw_sound(view.view, picture, class_name, unit))
        else:
            time = f"{unit.format_time(picture.time_seconds)}: " if unit is not None else ""
            tiles.append(
                Tile(f"{time}probability {picture.probability:.3f}", _draw_pictures(picture, class_name, None))
            )
    title = f"{view.view.name}, as {', '.join(dict.fromkeys(view.networks))} sees it"
    checked = any(picture.occlusion is not None for picture in view.pictures)
    return MapSection(title, tuple(sentences), tuple(tiles), tuple(charts), checked)


def make_tile(file: RankedFile, rank: int) -> Tile:
    """Makes the tile of a file of a folder."""
    caption = f"{rank}. {file.class_name} {file.score:.3f}: {file.name}"
    if file.maps is None or file.maps.heat is None:
        caption = " · ".join([caption, *file.problems])
    return Tile(caption, _draw_pictures(file.maps, file.class_name, _TILE_SIDE) if file.maps else ())


def describe_agreement(pictures: Iterable[PictureMaps]) -> str:
    """Writes how well Grad-CAM and occlusion agree, or why that is not known."""
    pictures = list(pictures)
    if all(each.occlusion is None for each in pictures):
        return "The maps are by Grad-CAM alone; none was checked by occlusion."
    known = [each.agreement for each in pictures if not math.isnan(each.agreement)]
    if not known:
        return "Grad-CAM and occlusion cannot be compared: one of them shows nothing that speaks for the class."
    value, which = float(np.median(known)), "rank correlation"
    if len(pictures) > 1:
        which = f"median rank correlation over {len(known)} of {len(pictures)} pictures"
    verdict = "well" if value >= 0.6 else "in part" if value >= 0.3 else "hardly: trust neither map"
    return f"Grad-CAM and occlusion agree {verdict} ({which} {value:.2f}; 1 is the same order of parts, 0 none)."


def encode_scale() -> str:
    """Encodes the colours of the maps from clear to hottest, over middle grey."""
    ramp = np.tile(np.linspace(0, 1, 256, dtype=np.float32), (12, 1))
    return encode_picture(draw_heat_map(Image.new("RGB", (256, 12), "#808080"), ramp))


def _draw_pictures(maps: PictureMaps, class_name: str, side: int | None) -> tuple[Shown, ...]:
    """Draws a picture and its maps, at most `side` pixels long."""
    picture = maps.picture
    if side is not None:
        picture = picture.copy()
        picture.thumbnail((side, side), Image.Resampling.BICUBIC)
    shown = [Shown("as it is", "The picture without a map", encode_picture(_draw_rim(picture, maps)))]
    for label, heat in (("Grad-CAM", maps.heat), ("occlusion", maps.occlusion)):
        if heat is not None:
            drawn = _draw_rim(draw_heat_map(picture, heat), maps)
            shown.append(
                Shown(label, f"{label} for class {class_name}: {_describe_hottest(heat)}", encode_picture(drawn))
            )
    return tuple(shown)


def _draw_rim(picture: Image.Image, maps: PictureMaps) -> Image.Image:
    """Draws a rim around what networks see of a picture, unless that is all of it."""
    if _area(maps.seen) >= 0.999:
        return picture
    picture = picture.copy()
    left, top, right, bottom = (
        share * side for share, side in zip(maps.seen, (picture.width, picture.height) * 2, strict=True)
    )
    ImageDraw.Draw(picture).rectangle((left, top, right - 1, bottom - 1), outline=_RIM, width=2)
    return picture


def _area(box: tuple[float, float, float, float]) -> float:
    """Computes the share of a picture that a box covers."""
    return (box[2] - box[0]) * (box[3] - box[1])


def _describe_hottest(heat: Heat) -> str:
    """Writes which ninth of a picture is the hottest."""
    if not heat.max():
        return "nothing speaks for it"
    row, column = _find_hottest(heat)
    down = ("top", "middle", "bottom")[min(2, int(3 * row))]
    across = ("left", "centre", "right")[min(2, int(3 * column))]
    return f"hottest at the {down} {across}"


def _find_hottest(heat: Heat) -> tuple[float, float]:
    """Finds the hottest position, in shares of the height from the top and of the width from the left."""
    row, column = np.unravel_index(int(heat.argmax()), heat.shape)
    return (int(row) + 0.5) / heat.shape[0], (int(column) + 0.5) / heat.shape[1]


# --- sound ------------------------------------------------------------------------------------------------------------


def _draw_sound(view: SoundView, maps: PictureMaps, class_name: str, unit: TimeUnit) -> Chart:
    """Draws the maps of a picture of sound, one below the other over the time of the clip."""
    layers = [
        (label, heat) for label, heat in (("Grad-CAM", maps.heat), ("occlusion", maps.occlusion)) if heat is not None
    ]
    start, end = maps.time_seconds - maps.length_seconds / 2, maps.time_seconds + maps.length_seconds / 2
    # a sound that is shorter than the picture is repeated in it
    shown_seconds = view.seconds / unit.seconds
    figure = _make_panels([label for label, _ in layers] or ["no map"], unit)
    ticks = _list_ticks(view)
    for row, (_, heat) in enumerate(layers or [("", None)], start=1):
        drawn = maps.picture.convert("RGB") if heat is None else draw_heat_map(maps.picture, heat)
        figure.add_trace(
            require("plotly.graph_objects").Image(
                source=encode_picture(drawn), hoverinfo="skip", x0=start / unit.seconds, y0=0,
                dx=shown_seconds / drawn.width, dy=1 / drawn.height,
            ),
            row=row, col=1,
        )  # fmt: skip
        figure.update_yaxes(
            range=[1, 0], scaleanchor=False, tickvals=list(ticks.values()), ticktext=list(ticks), row=row, col=1
        )
        figure.update_xaxes(range=[start / unit.seconds, start / unit.seconds + shown_seconds], row=row, col=1)
    sentence = f"{class_name}: probability {maps.probability:.3f}."
    for label, heat in layers:
        sentence += f" {label}: {_describe_sound(view, heat, start, unit)}."
    if end - start < view.seconds - 0.01:
        sentence += f" The sound is {end - start:.2f} s long and repeated until it fills {view.seconds:g} s."
    return Chart(f"{view.name}, {start / unit.seconds:.2f} to {unit.format_time(end)}", sentence, figure)


def _make_panels(titles: list[str], unit: TimeUnit) -> Any:
    """Makes an empty figure of panels below each other, which leaves the colours of text to the page."""
    figure = require("plotly.subplots").make_subplots(
        rows=len(titles), cols=1, shared_xaxes=True, subplot_titles=titles, vertical_spacing=0.12
    )
    figure.update_layout(make_figure("", "").layout, height=_PANEL * len(titles) + 90, showlegend=False)
    figure.update_annotations(font_size=13, x=0, xanchor="left")
    figure.update_xaxes(zeroline=False)
    figure.update_yaxes(zeroline=False)
    figure.update_xaxes(title_text=f"time ({unit.name})", row=len(titles), col=1)
    return figure


def _list_ticks(view: SoundView) -> dict[str, float]:
    """Lists what stands beside a picture of sound: frequencies or features, by their share of the height."""
    if isinstance(view, Mel):
        bands = require("librosa").mel_frequencies(n_mels=view.n_mels, fmin=view.fmin_hz, fmax=view.fmax_hz)
        shown = [tick for tick in _TICKS_HZ if bands[0] <= tick <= bands[-1]]
        shares = np.interp(shown, bands, np.linspace(1, 0, view.n_mels)).tolist()
        labels = [f"{tick} Hz" if tick < 1000 else f"{tick // 1000} kHz" for tick in shown]
        return dict(zip(labels, shares, strict=True))
    names = [name.replace("spectral_", "").replace("_", " ") for name in FEATURES]
    return {name: (number + 0.5) / len(names) for number, name in enumerate(names)}


def _describe_sound(view: SoundView, heat: Heat, start_seconds: float, unit: TimeUnit) -> str:
    """Writes where a map of sound is the hottest: the time, and the frequency or the feature."""
    if not heat.max():
        return "nothing speaks for it"
    row, column = _find_hottest(heat)
    time = unit.format_time(start_seconds + column * view.seconds)
    if isinstance(view, Mel):
        bands = require("librosa").mel_frequencies(n_mels=view.n_mels, fmin=view.fmin_hz, fmax=view.fmax_hz)
        return f"hottest at {time}, about {float(np.interp(1 - row, np.linspace(0, 1, view.n_mels), bands)):.0f} Hz"
    return f"hottest at {time}, in {FEATURES[min(len(FEATURES) - 1, int(row * len(FEATURES)))]}"
