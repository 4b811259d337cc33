"""Figures of a clip over time: numbers in, Plotly figures out.

Colours are Okabe & Ito's, or Cividis, which colour-blind people can tell apart and which are ordered in grey as well.
"""

import html
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from automl.inspection.clip import Curve, Floats, Pictures, Sound, TimeUnit
from automl.media.opening import require
from automl.pages.figures import make_figure

if TYPE_CHECKING:  # it brings torch, which only scores need
    from automl.inspection.score_timeline import ClipScores, MemberScores

Figure = Any  # plotly.graph_objects.Figure: Plotly has no types

_BLUE, _ORANGE, _GRAY = "#0072B2", "#D55E00", "#777777"
_PANEL = 260  # pixels
_LEGEND = 120  # pixels below the time axis: on a phone the names stand below each other
_LABELS, _LABEL_SHARE = 8, 0.08  # unusual points with their time beside them; the width of that, of the panel's
_HIGHEST = 3  # moments of a member that get a label
_COLOURS = ("#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # of members; then again from the first
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross")
_GAP = 2.5  # usual steps of time from which a line is broken; times are those of frames, so one step may be two
_TICKS_HZ = (0, 250, 500, 1000, 2000, 4000, 8000, 16_000)
_TONES = ("C", "C♯", "D", "D♯", "E", "F", "F♯", "G", "G♯", "A", "A♯", "B")
_LOUDNESS_DB = (-100, 0)
_LINES = {  # the unit, and what numbers are multiplied with to be in it
    "rms": ("loudness (dB)", 1.0),
    "spectral_centroid": ("centroid (kHz)", 1e-3),
    "spectral_bandwidth": ("bandwidth (kHz)", 1e-3),
    "spectral_rolloff": ("rolloff (kHz)", 1e-3),
    "zero_crossing_rate": ("zero crossings<br>(% of samples)", 100.0),
}
_TITLES = {
    "chroma_stft": "chroma_stft: how strong each tone is, the strongest of a moment being 1",
    "rms": "rms: loudness, 0 dB being full amplitude",
    "spectral_centroid": "spectral_centroid: the middle of the spectrum",
    "spectral_bandwidth": "spectral_bandwidth: how wide the spectrum is around its middle",
    "spectral_rolloff": "spectral_rolloff: below it lies 85 % of the spectrum",
    "zero_crossing_rate": "zero_crossing_rate",
    "mfcc": "mfcc: the 20 coefficients of the mel cepstrum, each less its median over the clip",
}


def draw_timeline(pictures: Pictures | None, unit: TimeUnit, scores: "ClipScores | None" = None) -> Figure:
    """Draws the similarity of frames and faces with the ones before, the unusual marked, and a model's scores.

    One to three panels over the same time: a sound file has no pictures (None), and scores without any moment are not
    drawn.
    """
    curves = {} if pictures is None else {"Neighbouring frames": pictures.frame_curve}
    if pictures is not None and not np.isnan(pictures.face_curve.similarity).all():
        curves["Neighbouring face crops"] = pictures.face_curve
    titles = list(curves)
    if scores is not None and scores.score is not None:  # Plotly reads tags in texts
        titles.append(f"Score of the model: probability of class {html.escape(scores.class_name, quote=False)}")
    figure = _make_panels(titles, [_PANEL] * len(titles), unit)
    for row, curve in enumerate(curves.values(), start=1):
        _add_curve(figure, row, curve, unit)
        figure.update_yaxes(title_text="similarity (SSIM)", row=row, col=1)
    legend = {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "x": 0}
    figure.update_layout(legend=legend, margin_b=_LEGEND, height=figure.layout.height + _LEGEND)
    if scores is not None and len(titles) > len(curves):
        _add_scores(figure, len(titles), scores, unit)
    return figure


def find_highest(member: "MemberScores") -> list[int]:
    """Finds the positions of the highest scores, the highest first; none near another."""
    order = np.argsort(-member.probabilities, kind="stable").tolist()
    return _choose_apart(member.times_seconds, order, _HIGHEST)


def draw_mel(sound: Sound, unit: TimeUnit) -> Figure:
    """Draws the log-mel spectrogram; the frequency axis is the mel scale, labelled in Hz."""
    figure = _make_panels(["Log-mel spectrogram"], [360], unit)
    bands = np.arange(len(sound.mel_hz))
    shown = [tick for tick in _TICKS_HZ if tick <= sound.sample_rate_hz / 2]
    figure.add_trace(
        _plotly().Heatmap(
            x=_convert_times(sound.times_seconds, unit),
            y=bands,
            z=np.rint(sound.mel_db.clip(*_LOUDNESS_DB)).astype(np.int8),
            customdata=np.repeat(np.rint(sound.mel_hz).astype(np.uint16)[:, None], sound.mel_db.shape[1], axis=1),
            zmin=_LOUDNESS_DB[0],
            zmax=_LOUDNESS_DB[1],
            colorscale="Cividis",
            colorbar={"title": "dB", "thickness": 14},
            hovertemplate=f"%{{x:.2f}} {unit.name}, %{{customdata}} Hz: %{{z}} dB<extra></extra>",
        )
    )
    positions = np.interp(shown, sound.mel_hz, bands)
    labels = [f"{tick} Hz" if tick < 1000 else f"{tick // 1000} kHz" for tick in shown]
    figure.update_yaxes(title_text="frequency", tickvals=positions, ticktext=labels)
    return figure


def describe_loudest(sound: Sound, unit: TimeUnit) -> str:
    """Writes when a sound is loudest, and below which frequency most of it is."""
    loudness = sound.features["rms"][0]
    if np.isnan(loudness).all() or float(np.nanmax(loudness)) <= _LOUDNESS_DB[0]:
        return "It is silence throughout."
    loudest = int(np.nanargmax(loudness))
    rolloff = float(np.nanmedian(sound.features["spectral_rolloff"]))
    return (
        f"Loudest at {unit.format_time(float(sound.times_seconds[loudest]))} ({loudness[loudest]:.0f} dB); half of the"
        f" time 85 % of the sound is below {rolloff / 1000:.1f} kHz."
    )


def describe_features(sound: Sound) -> str:
    """Writes the medians of what has a unit."""
    medians = [
        f"{_LINES[name][0].split(' (')[0].replace('<br>', ' ')} {float(np.nanmedian(values)) * _LINES[name][1]:.3g}"
        f" {_LINES[name][0].split('(')[1].rstrip(')')}"
        for name, values in sound.features.items()
        if name in _LINES and not np.isnan(values).all()
    ]
    return f"Medians over the clip: {', '.join(medians)}."


def draw_features(sound: Sound, unit: TimeUnit) -> Figure:
    """Draws the seven features of the sound, one below the other over the same time."""
    names = list(sound.features)
    figure = _make_panels([_TITLES[name] for name in names], [130 if name in _LINES else 170 for name in names], unit)
    times = _convert_times(sound.times_seconds, unit)
    for row, name in enumerate(names, start=1):
        values = sound.features[name]
        if name in _LINES:
            title, factor = _LINES[name]
            hover = f"%{{x:.2f}} {unit.name}: %{{y:.2f}}<extra></extra>"
            line = {"color": _BLUE, "width": 1.2}
            numbers = (values[0] * factor).astype(np.float32)
            options = {"mode": "lines", "line": line, "hovertemplate": hover, "showlegend": False}
            figure.add_trace(_plotly().Scatter(x=times, y=numbers, **options), row=row, col=1)
            limits = {"range": _LOUDNESS_DB} if name == "rms" else {"rangemode": "tozero"}
            figure.update_yaxes(title_text=title, row=row, col=1, **limits)
        else:
            _add_rows(figure, row, name, values, times)
    return figure


def _add_curve(figure: Figure, row: int, curve: Curve, unit: TimeUnit) -> None:
    """Adds a panel of similarities: the line, the limits of the usual, and the unusual points with their times."""
    times = _convert_times(curve.times_seconds, unit)
    hover = f"%{{x:.2f}} {unit.name}: %{{y:.3f}}<extra></extra>"
    marker: dict[str, Any] = {"size": 4, "color": _BLUE}
    line = {"x": times, "y": curve.similarity, "mode": "lines+markers", "line_width": 1.5, "marker": marker}
    _add_trace(figure, row, "similarity to the one before", line | {"line_color": _BLUE, "hovertemplate": hover})
    for limit in curve.limits or ():
        if -1 < limit < 1:  # similarities are not beyond
            ends = {"x": [times[0], times[-1]], "y": [limit, limit], "mode": "lines", "hoverinfo": "skip"}
            dashed = {"line": {"color": _GRAY, "width": 1, "dash": "dash"}}
            _add_trace(figure, row, "limits of the usual", ends | dashed)
    far = np.flatnonzero(curve.unusual)
    if len(far):
        farthest = far[np.argsort(-np.abs(curve.similarity[far] - curve.median), kind="stable")].tolist()
        labelled = _choose_apart(curve.times_seconds, farthest, _LABELS)  # whose texts do not overlap
        marker = {"size": 10, "symbol": "diamond", "color": _ORANGE, "line": {"width": 1, "color": "black"}}
        points = {
            "x": times[far],
            "y": curve.similarity[far],
            "text": [unit.format_time(curve.times_seconds[each]) if each in labelled else "" for each in far],
            "mode": "markers+text",
            "textposition": ["top center" if up else "bottom center" for up in curve.similarity[far] > curve.median],
        }
        _add_trace(figure, row, "unusual", points | {"marker": marker, "hovertemplate": hover, "cliponaxis": False})
    known = curve.similarity[~np.isnan(curve.similarity)]
    if len(known):  # all points and their labels show; limits beyond 1 need not
        low, high = float(known.min()), float(known.max())
        if curve.limits is not None:
            low, high = min(low, curve.limits[0]), max(high, min(1.0, curve.limits[1]))
        room = max(0.15 * (high - low), 0.01)
        figure.update_yaxes(range=[low - room, high + room], row=row, col=1)


def _choose_apart(times_seconds: Floats, order: Iterable[int], most: int) -> list[int]:
    """Takes the first positions of an order, without those whose texts would overlap the text of one before."""
    chosen: list[int] = []
    for position in order:
        gaps = [abs(times_seconds[position] - times_seconds[other]) for other in chosen]
        if len(chosen) < most and min(gaps, default=np.inf) > _LABEL_SHARE * (times_seconds[-1] - times_seconds[0]):
            chosen.append(position)
    return chosen


def _add_scores(figure: Figure, row: int, scores: "ClipScores", unit: TimeUnit) -> None:
    """Adds a panel of scores: a line for each member, its highest moments ringed, and the clip's score across."""
    for number, member in enumerate(scores.members):
        if len(member.times_seconds):
            colour, symbol = _COLOURS[number % len(_COLOURS)], _SYMBOLS[number % len(_SYMBOLS)]
            _add_member(figure, row, member, unit, {"color": colour, "symbol": symbol, "size": 6})
            if member.medium == "video":
                _add_rings(figure, row, member, unit, colour, named=len(scores.members) == 1)
    dashed = {"color": _GRAY, "width": 1.5, "dash": "dash"}
    figure.add_hline(y=scores.score, row=row, col=1, line=dashed)
    text = f"clip score<br>{scores.score:.3f}"
    beside = {"x": 1.005, "xref": "x domain", "xanchor": "left", "align": "left", "showarrow": False}
    figure.add_annotation(y=scores.score, text=text, row=row, col=1, **beside)
    figure.update_yaxes(title_text="probability", range=[-0.06, 1.06], dtick=0.25, row=row, col=1)


def _add_member(figure: Figure, row: int, member: "MemberScores", unit: TimeUnit, marker: dict[str, Any]) -> None:
    """Adds the scores of one member over time; a bar is the time that a picture of sound shows."""
    times, values, each = member.times_seconds, member.probabilities, member.seconds_each
    starts, ends = (times - each / 2) / unit.seconds, map(unit.format_time, times + each / 2)
    spans = [f"{start:.2f} to {end}" if wide else end for start, end, wide in zip(starts, ends, each, strict=True)]
    steps = np.diff(times)
    several = bool((steps == 0).any())  # several faces of a frame: no line goes through them
    usual = np.median(steps) if len(steps) else np.inf
    holes = np.flatnonzero(steps > _GAP * usual) + 1 if not several else np.empty(0, dtype=np.intp)
    name = html.escape(member.name, quote=False)
    line = _plotly().Scatter(
        name=name,
        legendgroup=f"member {name}",
        showlegend=True,
        x=_convert_times(np.insert(times, holes, times[holes]), unit),
        y=np.insert(values, holes, np.nan),
        customdata=np.insert(np.array(spans, dtype=object), holes, ""),
        mode="markers" if several else "lines+markers",
        line={"width": 1.5, "color": marker["color"]},
        marker=marker,
        hovertemplate="%{customdata}: %{y:.3f}",
    )
    if each.any():
        line.error_x = {"array": np.insert(each, holes, 0) / 2 / unit.seconds, "thickness": 1, "width": 4}
    figure.add_trace(line, row=row, col=1)


def _add_rings(figure: Figure, row: int, member: "MemberScores", unit: TimeUnit, colour: str, *, named: bool) -> None:
    """Adds rings around a member's highest moments; `named`: with times, which would overlap for several members."""
    positions = find_highest(member)
    values = member.probabilities[positions]
    rings = _plotly().Scatter(
        x=_convert_times(member.times_seconds[positions], unit),
        y=values,
        text=[unit.format_time(member.times_seconds[position]) for position in positions],
        mode="markers+text" if named else "markers",
        textposition=["bottom center" if value > 0.92 else "top center" for value in values],
        marker={"size": 13, "symbol": "circle-open", "color": colour, "line": {"width": 2}},
        legendgroup=f"member {html.escape(member.name, quote=False)}",
        showlegend=False,
        hoverinfo="skip",
        cliponaxis=False,
    )
    figure.add_trace(rings, row=row, col=1)


def _add_trace(figure: Figure, row: int, name: str, values: dict[str, Any]) -> None:
    """Adds a line or points; what has the same name is once in the legend."""
    new = all(trace.name != name for trace in figure.data)
    trace = _plotly().Scatter(name=name, legendgroup=name, showlegend=new, **values)
    figure.add_trace(trace, row=row, col=1)


def _add_rows(figure: Figure, row: int, name: str, values: Floats, times: Any) -> None:
    """Adds a panel of a feature with several rows, as a picture."""
    axis: dict[str, Any] = {"title_text": "tone", "tickvals": [0, 4, 7, 11], "ticktext": ["C", "E", "G", "B"]}
    options: dict[str, Any] = {"y": list(_TONES), "zmin": 0, "zmax": 1, "colorscale": "Cividis"}
    if name == "mfcc":
        values = values - np.nanmedian(values, axis=1, keepdims=True)
        reach = max(1.0, float(np.nanpercentile(np.abs(values), 99)))
        axis = {"title_text": "coefficient", "tickvals": [1, 5, 10, 15, 20]}
        options = {"y": np.arange(1, len(values) + 1), "zmin": -reach, "zmax": reach, "colorscale": "PuOr"}
    axes = figure.get_subplot(row, 1).yaxis.domain
    bar = {"thickness": 12, "len": axes[1] - axes[0], "y": (axes[0] + axes[1]) / 2, "title": "dB"}
    if name != "mfcc":
        bar |= {"title": "", "tickvals": [0, 0.5, 1]}
    picture = _plotly().Heatmap(x=times, z=values.astype(np.float32), colorbar=bar, hoverongaps=False, **options)
    figure.add_trace(picture, row=row, col=1)
    figure.update_yaxes(row=row, col=1, **axis)


def _make_panels(titles: list[str], heights: list[int], unit: TimeUnit) -> Figure:
    """Makes an empty figure of panels below each other that share their time axis; heights are in pixels."""
    top, bottom, between = 40, 50, 44
    inner = sum(heights) + between * (len(heights) - 1)
    figure = require("plotly.subplots").make_subplots(
        rows=len(titles), cols=1, shared_xaxes=True, subplot_titles=titles, row_heights=heights,
        vertical_spacing=between / inner if len(titles) > 1 else 0,
    )  # fmt: skip
    figure.update_layout(make_figure("", "").layout, height=inner + top + bottom)
    figure.update_layout(margin={"l": 70, "r": 70, "t": top, "b": bottom})
    figure.update_annotations(font_size=14, x=0, xanchor="left")
    figure.update_xaxes(zeroline=False)
    figure.update_yaxes(zeroline=False)
    figure.update_xaxes(title_text=f"time ({unit.name})", row=len(titles), col=1)
    return figure


def _convert_times(times_seconds: Floats, unit: TimeUnit) -> Floats:
    """Converts times to the unit of the axis."""
    return np.round(times_seconds / unit.seconds, 4)


def _plotly() -> Any:
    """Imports Plotly's kinds of traces."""
    return require("plotly.graph_objects")
