"""Figures of a clip over time: numbers in, Plotly figures out.

Colours are Okabe & Ito's, or Cividis, which colour-blind people can tell apart and which are ordered in grey as well.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from automl.data.media import require
from automl.report.clip import Curve, Pictures, Sound
from automl.report.clock import Clock

__all__ = ["features_figure", "mel_figure", "similarity_figure"]

Figure = Any  # plotly.graph_objects.Figure: Plotly has no types

_BLUE, _ORANGE, _GRAY = "#0072B2", "#D55E00", "#777777"
_LABELS, _LABEL_SHARE = 8, 0.08  # unusual points with their time beside them; the width of that, of the panel's
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


def similarity_figure(pictures: Pictures, clock: Clock) -> Figure:
    """How like each frame, and each face, is to the one before it, with the unusual marked.

    Args:
        pictures: What was found in the clip.
        clock: The unit of the time axis.

    Returns:
        A figure of one panel, or of two over the same time if there are faces.
    """
    curves = {"Neighbouring frames": pictures.frame_curve}
    if not np.isnan(pictures.face_curve.similarity).all():
        curves["Neighbouring face crops"] = pictures.face_curve
    figure = _panels(list(curves), [260] * len(curves), clock)
    for row, curve in enumerate(curves.values(), start=1):
        _draw_curve(figure, row, curve, clock)
        figure.update_yaxes(title_text="similarity (SSIM)", row=row, col=1)
    figure.update_layout(legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 1, "xanchor": "right"})
    figure.update_layout(margin_t=60)
    return figure


def mel_figure(sound: Sound, clock: Clock) -> Figure:
    """The log-mel spectrogram; the frequency axis is the mel scale, labelled in Hz.

    Args:
        sound: What was heard in the clip.
        clock: The unit of the time axis.
    """
    figure = _panels(["Log-mel spectrogram"], [360], clock)
    bands = np.arange(len(sound.mel_hz))
    shown = [tick for tick in _TICKS_HZ if tick <= sound.sample_rate_hz / 2]
    figure.add_trace(
        _graph().Heatmap(
            x=_shown(sound.times_seconds, clock),
            y=bands,
            z=np.rint(sound.mel_db.clip(*_LOUDNESS_DB)).astype(np.int8),
            customdata=np.repeat(np.rint(sound.mel_hz).astype(np.uint16)[:, None], sound.mel_db.shape[1], axis=1),
            zmin=_LOUDNESS_DB[0],
            zmax=_LOUDNESS_DB[1],
            colorscale="Cividis",
            colorbar={"title": "dB", "thickness": 14},
            hovertemplate=f"%{{x:.2f}} {clock.unit}, %{{customdata}} Hz: %{{z}} dB<extra></extra>",
        )
    )
    places = np.interp(shown, sound.mel_hz, bands)
    labels = [f"{tick} Hz" if tick < 1000 else f"{tick // 1000} kHz" for tick in shown]
    figure.update_yaxes(title_text="frequency", tickvals=places, ticktext=labels)
    return figure


def features_figure(sound: Sound, clock: Clock) -> Figure:
    """The seven features of the sound, one below the other over the same time.

    Args:
        sound: What was heard in the clip.
        clock: The unit of the time axis.
    """
    names = list(sound.features)
    figure = _panels([_TITLES[name] for name in names], [130 if name in _LINES else 170 for name in names], clock)
    times = _shown(sound.times_seconds, clock)
    for row, name in enumerate(names, start=1):
        values = sound.features[name]
        if name in _LINES:
            title, factor = _LINES[name]
            hover = f"%{{x:.2f}} {clock.unit}: %{{y:.2f}}<extra></extra>"
            line = _graph().Scatter(
                x=times, y=(values[0] * factor).astype(np.float32), mode="lines", hovertemplate=hover, showlegend=False
            )
            line.line = {"color": _BLUE, "width": 1.2}
            figure.add_trace(line, row=row, col=1)
            limits = {"range": _LOUDNESS_DB} if name == "rms" else {"rangemode": "tozero"}
            figure.update_yaxes(title_text=title, row=row, col=1, **limits)
        else:
            _draw_rows(figure, row, name, values, times)
    return figure


def _draw_curve(figure: Figure, row: int, curve: Curve, clock: Clock) -> None:
    """One panel of similarities: the line, the limits of the usual, and the unusual points with their times."""
    times = _shown(curve.times_seconds, clock)
    hover = f"%{{x:.2f}} {clock.unit}: %{{y:.3f}}<extra></extra>"
    marker: dict[str, Any] = {"size": 4, "color": _BLUE}
    line = {"x": times, "y": curve.similarity, "mode": "lines+markers", "line_width": 1.5, "marker": marker}
    _add(figure, row, "similarity to the one before", line | {"line_color": _BLUE, "hovertemplate": hover})
    for limit in curve.limits or ():
        if -1 < limit < 1:  # similarities are not beyond
            ends = {"x": [times[0], times[-1]], "y": [limit, limit], "mode": "lines", "hoverinfo": "skip"}
            _add(figure, row, "limits of the usual", ends | {"line": {"color": _GRAY, "width": 1, "dash": "dash"}})
    far = np.flatnonzero(curve.unusual)
    if len(far):
        labelled = _labelled(curve, far)
        marker = {"size": 10, "symbol": "diamond", "color": _ORANGE, "line": {"width": 1, "color": "black"}}
        points = {
            "x": times[far],
            "y": curve.similarity[far],
            "text": [clock.text(curve.times_seconds[place]) if place in labelled else "" for place in far],
            "mode": "markers+text",
            "textposition": ["top center" if up else "bottom center" for up in curve.similarity[far] > curve.median],
        }
        _add(figure, row, "unusual", points | {"marker": marker, "hovertemplate": hover, "cliponaxis": False})
    _fit(figure, row, curve)


def _labelled(curve: Curve, far: npt.NDArray[np.intp]) -> list[int]:
    """Which unusual points have their time beside them.

    The farthest from the median, and none so near another one that the texts would overlap.
    """
    chosen: list[int] = []
    near = _LABEL_SHARE * (curve.times_seconds[-1] - curve.times_seconds[0])
    for place in far[np.argsort(-np.abs(curve.similarity[far] - curve.median), kind="stable")].tolist():
        gaps = [abs(curve.times_seconds[place] - curve.times_seconds[other]) for other in chosen]
        if len(chosen) < _LABELS and min(gaps, default=np.inf) > near:
            chosen.append(place)
    return chosen


def _add(figure: Figure, row: int, name: str, values: dict[str, Any]) -> None:
    """Adds a line or points; what has the same name is once in the legend."""
    new = all(trace.name != name for trace in figure.data)
    trace = _graph().Scatter(name=name, legendgroup=name, showlegend=new, **values)
    figure.add_trace(trace, row=row, col=1)


def _fit(figure: Figure, row: int, curve: Curve) -> None:
    """Sets the range of similarities so that all points and their labels show; limits beyond 1 need not."""
    known = curve.similarity[~np.isnan(curve.similarity)]
    if len(known):
        low, high = float(known.min()), float(known.max())
        if curve.limits is not None:
            low, high = min(low, curve.limits[0]), max(high, min(1.0, curve.limits[1]))
        room = max(0.15 * (high - low), 0.01)
        figure.update_yaxes(range=[low - room, high + room], row=row, col=1)


def _draw_rows(figure: Figure, row: int, name: str, values: npt.NDArray[np.float64], times: Any) -> None:
    """One panel of a feature with several rows, as a picture."""
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
    picture = _graph().Heatmap(x=times, z=values.astype(np.float32), colorbar=bar, hoverongaps=False, **options)
    figure.add_trace(picture, row=row, col=1)
    figure.update_yaxes(row=row, col=1, **axis)


def _panels(titles: list[str], heights: list[int], clock: Clock) -> Figure:
    """An empty figure of panels below each other that share their time axis; heights are in pixels."""
    top, bottom, between = 40, 50, 44
    inner = sum(heights) + between * (len(heights) - 1)
    figure = require("plotly.subplots").make_subplots(
        rows=len(titles), cols=1, shared_xaxes=True, subplot_titles=titles, row_heights=heights,
        vertical_spacing=between / inner if len(titles) > 1 else 0,
    )  # fmt: skip
    figure.update_layout(template="plotly_white", height=inner + top + bottom, hovermode="closest")
    figure.update_layout(margin={"l": 90, "r": 80, "t": top, "b": bottom}, font={"family": "sans-serif", "size": 13})
    figure.update_annotations(font_size=14, x=0, xanchor="left")
    figure.update_xaxes(title_text=f"time ({clock.unit})", row=len(titles), col=1)
    return figure


def _shown(times_seconds: npt.NDArray[np.float64], clock: Clock) -> npt.NDArray[np.float64]:
    """Times in the unit of the axis."""
    return np.round(times_seconds / clock.unit_seconds, 4)


def _graph() -> Any:
    """Plotly's kinds of traces."""
    return require("plotly.graph_objects")
