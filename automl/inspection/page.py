"""The page and the contact sheet of one clip: what `automl inspect` writes.

The page is one HTML file that opens without a network: Plotly's JavaScript is in it, and it may load nothing. It is
rendered by `page.html.jinja`; everything a file says of itself is escaped.
"""

import base64
import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, StrictUndefined
from PIL import Image

from automl.errors import DataError
from automl.files import write_atomically, write_text
from automl.inspection.clip import COMPARED_SIDE, LEAST_CHANGE, LEAST_PAIRS, MOST_Z, Clip, look
from automl.inspection.clock import Clock
from automl.inspection.contact_sheet import contact_sheet
from automl.inspection.figures import Scores, features_figure, highest, mel_figure, scores_figure, similarity_figure
from automl.media.info import AudioStream, MediaInfo, VideoStream
from automl.media.opening import require

if TYPE_CHECKING:
    from jinja2 import Template

PAGE, SHEET = "inspect.html", "frames.png"
"""Names of the files that are written; the sheet only of a video."""

_DISK_FULL = (28, 122)  # which the command line tells itself
_FIGURE = {"displaylogo": False, "responsive": True}


@dataclass(frozen=True)
class Inspection:
    """What was written about a clip, and what is most to be known.

    Attributes:
        page: The HTML file.
        sheet: The PNG file; None of a sound file.
        lines: Plain sentences: the notes, the times of what is unusual, and what a model says.
    """

    page: Path
    sheet: Path | None
    lines: tuple[str, ...]


def inspect_clip(
    path: Path,
    folder: Path,
    frames: int = 64,
    face_model: str | None = None,
    score: Callable[[Path, int], Scores] | None = None,
) -> Inspection:
    """Writes the page and the contact sheet of a video or a sound file.

    Args:
        path: The file.
        folder: Where to write; made if it is missing, files of an earlier call are replaced.
        frames: How many are compared, at least 2, evenly placed.
        face_model: A YuNet ONNX file. None: that of the `media` extra.
        score: From the path and `frames` to what a model says of the clip. None: no model is asked.

    Raises:
        DataError: If the file is an image or cannot be read, or the folder cannot be written.
    """
    require("plotly")  # told before a long clip is decoded
    if folder.exists() and not folder.is_dir():
        raise DataError(f"cannot write into {folder}: it is a file; name another folder with --out")
    clip = look(path, frames, face_model)
    scores = None if score is None else score(path, frames)
    clock = Clock.of(_seconds(clip))
    sheet = None if clip.pictures is None else contact_sheet(clip.pictures, clock)
    page = _render(clip, sheet, clock, scores)
    try:
        write_text(folder / PAGE, page)
        if sheet is not None:
            with write_atomically(folder / SHEET) as temporary:
                sheet.save(temporary, format="PNG")
    except OSError as exc:
        if exc.errno in _DISK_FULL:
            raise
        raise DataError(f"cannot write into {folder}: {exc.strerror}; name another folder with --out") from exc
    lines = (*clip.notes, *_unusual(clip, clock).values(), *_said(scores, clock))
    return Inspection(folder / PAGE, None if sheet is None else folder / SHEET, lines)


def _seconds(clip: Clip) -> float:
    """How long a clip is, as far as it is known."""
    return clip.info.duration_seconds or (clip.sound.seconds if clip.sound else 0.0)


def _unusual(clip: Clip, clock: Clock) -> dict[str, str]:
    """A sentence each on frames and faces that are unusually like or unlike the one before."""
    if clip.pictures is None:
        return {}
    curves = {"frames": clip.pictures.frame_curve, "faces": clip.pictures.face_curve}
    said = {}
    for what, curve in curves.items():
        times = [clock.text(time) for time in curve.unusual_seconds]
        if curve.limits is not None:
            said[what] = f"Unusual {what}, compared with the one before: {', '.join(times) or 'none'}."
    return said


def _said(scores: Scores | None, clock: Clock) -> list[str]:
    """Sentences on what a model says: of the clip, and by each member the highest moments or why there are none."""
    if scores is None:
        return []
    if scores.score is None:
        given = f"automl predict gives class {scores.class_name} its share in training, {scores.prior:.3f}"
        said = [f"The model sees nothing in this clip: {given}."]
    else:
        said = [f"Score of the clip, the probability of class {scores.class_name}: {scores.score:.3f}."]
    for member in scores.members:
        times, values = member.times_seconds, member.probabilities
        if member.problem:
            said.append(f"{member.name} sees nothing in this clip: {member.problem}.")
        elif member.medium == "video":
            moments = [f"{values[place]:.3f} at {clock.text(times[place])}" for place in highest(member)]
            said.append(f"Highest probability of class {scores.class_name} by {member.name}: {', '.join(moments)}.")
    return said


def _render(clip: Clip, sheet: Image.Image | None, clock: Clock, scores: Scores | None = None) -> str:
    """The whole page."""
    figures: dict[str, str] = {}
    if clip.pictures is not None and len(clip.pictures.frames) > 1:
        figures["similarity"] = _html(similarity_figure(clip.pictures, clock, scores))
    elif scores is not None and scores.score is not None:
        figures["scores"] = _html(scores_figure(scores, clock))
    if clip.sound is not None:
        figures["mel"] = _html(mel_figure(clip.sound, clock))
        figures["features"] = _html(features_figure(clip.sound, clock))
    return _template().render(
        name=_text(Path(clip.info.path.name)),
        facts=_facts(clip.info),
        notes=clip.notes,
        unusual=_unusual(clip, clock),
        said=_said(scores, clock),
        scores=scores,
        figures=figures,
        sheet=None if sheet is None else _jpeg(sheet),
        clip=clip,
        step=_step(clip, clock),
        clock=clock,
        rule={"z": MOST_Z, "least": LEAST_CHANGE, "pairs": LEAST_PAIRS, "side": COMPARED_SIDE},
        plotly=require("plotly.offline").get_plotlyjs(),
    )


def _step(clip: Clip, clock: Clock) -> str:
    """The time from one compared frame to the next, as a text."""
    if clip.pictures is None or len(clip.pictures.frames) < 2:
        return ""
    times = clip.pictures.frames.times_seconds
    return clock.text(float(times[-1] - times[0]) / (len(times) - 1))


def _facts(info: MediaInfo) -> dict[str, str]:
    """The rows of the table at the page's head."""
    seconds = info.duration_seconds
    facts = {
        "file": _text(info.path),
        "container": info.container,
        "duration": "not known" if seconds is None else _length(seconds),
    }
    facts |= {"pictures": "none"} if info.video is None else _video_facts(info.video)
    return facts | ({"sound": "none"} if info.audio is None else _audio_facts(info.audio))


def _video_facts(video: VideoStream) -> dict[str, str]:
    """The rows on pictures."""
    rate = "rate not known" if video.frames_per_second is None else f"{video.frames_per_second:.5g} frames a second"
    count = "" if video.frames is None else f", {video.frames} frames"
    turned = f"{video.rotation_degrees}° clockwise, shown upright here" if video.rotation_degrees else "none"
    return {
        "pictures": f"{video.width} × {video.height} pixels, {rate}{count}",
        "frame rate": "variable" if video.variable_rate else "constant",
        "picture codec": f"{video.codec}, {video.pixel_format}",
        "rotation": turned,
    }


def _audio_facts(audio: AudioStream) -> dict[str, str]:
    """The rows on sound."""
    channels = {1: "mono", 2: "stereo"}.get(audio.channels, f"{audio.channels} channels")
    length = "" if audio.duration_seconds is None else f", {_length(audio.duration_seconds)}"
    return {"sound": f"{audio.sample_rate_hz} Hz, {channels}{length}", "sound codec": audio.codec}


def _text(path: Path) -> str:
    """A path as text; bytes in it that are not UTF-8 become replacement characters."""
    return os.fsencode(path).decode("utf-8", errors="replace")


def _length(seconds: float) -> str:
    """A duration: in seconds, and if that is many, as hours, minutes and seconds too."""
    if seconds < 60:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{seconds:.1f} s ({minutes // 60}:{minutes % 60:02d}:{rest:02d})"


def _html(figure: Any) -> str:
    """A figure as a piece of HTML, without Plotly's own JavaScript."""
    return str(figure.to_html(full_html=False, include_plotlyjs=False, config=_FIGURE))


def _jpeg(sheet: Image.Image) -> str:
    """The contact sheet in base64, as JPEG: a fifth of the PNG."""
    out = io.BytesIO()
    sheet.save(out, format="JPEG", quality=85)
    return base64.b64encode(out.getvalue()).decode("ascii")


def _template() -> "Template":
    """The page's template; what is put in is escaped unless the template says that it is HTML."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(Path(__file__).with_name("page.html.jinja").read_text(encoding="utf-8"))
