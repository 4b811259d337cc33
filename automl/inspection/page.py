"""The page and the contact sheet of one clip: what `automl inspect` writes.

The page is one HTML file that opens without a network: Plotly's JavaScript is in it, and it may load nothing. It is
rendered by `page.html.jinja`; everything a file says of itself is escaped.
"""

import base64
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, StrictUndefined
from PIL import Image

from automl.errors import DataError
from automl.files import explain_write_errors, write_atomically, write_text
from automl.inspection.clip import COMPARED_SIDE, LEAST_CHANGE, LEAST_PAIRS, MOST_Z, Clip, analyse_clip
from automl.inspection.contact_sheet import draw_contact_sheet
from automl.inspection.figures import draw_features, draw_mel, draw_timeline, find_highest
from automl.media.info import MediaInfo
from automl.media.opening import require

if TYPE_CHECKING:  # it brings torch, which only scores need
    from automl.inspection.score_timeline import ClipScores

PAGE, SHEET = "inspect.html", "frames.png"
"""Names of the files that are written; the sheet only of a video."""


@dataclass(frozen=True)
class Inspection:
    """The files written about a clip (the sheet only of a video), and what is most to be known, in sentences."""

    page: Path
    sheet: Path | None
    lines: tuple[str, ...]


def inspect_clip(
    path: Path,
    folder: Path,
    frames: int = 64,
    face_model: str | None = None,
    model: Path | None = None,
    device: str = "auto",
    weights_dir: Path | None = None,
) -> Inspection:
    """Writes the page and the contact sheet of a video or a sound file; files of an earlier call are replaced.

    `frames`, at least 2, are compared, evenly placed; `face_model` is a YuNet ONNX file (None: that of the `media`
    extra). `model` is a folder that `automl train` wrote of clips, whose scores are shown; it runs on `device` (auto,
    cpu, cuda or cuda:N), and `weights_dir` is as for `automl.load`.
    """
    require("plotly")  # a missing one is an error before a long clip is decoded
    if folder.exists() and not folder.is_dir():
        raise DataError(f"cannot write into {folder}: it is a file; name another folder with --out")
    if model is None:
        return write_page(analyse_clip(path, frames, face_model), None, folder)
    from automl.inspection.score_timeline import load_clip_model, score_clip

    loaded = load_clip_model(model, device, weights_dir)
    return write_page(analyse_clip(path, frames, face_model), score_clip(loaded, path, frames), folder)


def write_page(clip: Clip, scores: "ClipScores | None", folder: Path) -> Inspection:
    """Writes the page and the contact sheet of a clip that was analysed; `scores` are None where there is no model."""
    sheet = None if clip.pictures is None else draw_contact_sheet(clip.pictures, clip.unit)
    page = render_page(clip, sheet, scores)
    with explain_write_errors(folder, DataError):
        write_text(folder / PAGE, page)
        if sheet is not None:
            with write_atomically(folder / SHEET) as temporary:
                sheet.save(temporary, format="PNG")
    lines = (*clip.notes, *_describe_unusual(clip), *_describe_scores(clip, scores))
    return Inspection(folder / PAGE, None if sheet is None else folder / SHEET, lines)


def render_page(clip: Clip, sheet: Image.Image | None, scores: "ClipScores | None") -> str:
    """Makes the text of the page; what is put in is escaped unless the template says that it is HTML."""
    unit, figures = clip.unit, dict[str, str]()
    if clip.pictures is not None and len(clip.pictures.frames) > 1:
        figures["similarity"] = _make_html(draw_timeline(clip.pictures, unit, scores))
    elif scores is not None and scores.score is not None:
        figures["scores"] = _make_html(draw_timeline(None, unit, scores))
    if clip.sound is not None:
        figures["mel"] = _make_html(draw_mel(clip.sound, unit))
        figures["features"] = _make_html(draw_features(clip.sound, unit))
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(Path(__file__).with_name("page.html.jinja").read_text(encoding="utf-8"))
    return template.render(
        name=_decode_path(Path(clip.info.path.name)),
        properties=_describe_file(clip.info),
        notes=clip.notes,
        unusual=_describe_unusual(clip),
        sentences=_describe_scores(clip, scores),
        scores=scores,
        figures=figures,
        sheet=None if sheet is None else _encode_jpeg(sheet),
        clip=clip,
        step=_describe_step(clip),
        rule={"z": MOST_Z, "least": LEAST_CHANGE, "pairs": LEAST_PAIRS, "side": COMPARED_SIDE},
        plotly=require("plotly.offline").get_plotlyjs(),
    )


def _describe_unusual(clip: Clip) -> list[str]:
    """Writes a sentence each on frames and faces that are unusually like or unlike the one before."""
    if clip.pictures is None:
        return []
    curves = {"frames": clip.pictures.frame_curve, "faces": clip.pictures.face_curve}
    return [
        f"Unusual {what}, compared with the one before: "
        f"{', '.join(map(clip.unit.format_time, curve.unusual_seconds)) or 'none'}."
        for what, curve in curves.items()
        if curve.limits is not None
    ]


def _describe_scores(clip: Clip, scores: "ClipScores | None") -> list[str]:
    """Writes sentences on the score of the clip, and by each member its highest moments or why there are none."""
    if scores is None:
        return []
    if scores.score is None:
        prior = f"automl predict gives class {scores.class_name} its share in training, {scores.prior:.3f}"
        sentences = [f"The model sees nothing in this clip: {prior}."]
    else:
        sentences = [f"Score of the clip, the probability of class {scores.class_name}: {scores.score:.3f}."]
    for member in scores.members:
        if member.problem:
            sentences.append(f"{member.name} sees nothing in this clip: {member.problem}.")
        elif member.medium == "video":
            moments = ", ".join(
                f"{member.probabilities[each]:.3f} at {clip.unit.format_time(member.times_seconds[each])}"
                for each in find_highest(member)
            )
            sentences.append(f"Highest probability of class {scores.class_name} by {member.name}: {moments}.")
    return sentences


def _describe_step(clip: Clip) -> str:
    """Writes the time from one compared frame to the next."""
    if clip.pictures is None or len(clip.pictures.frames) < 2:
        return ""
    times = clip.pictures.frames.times_seconds
    return clip.unit.format_time(float(times[-1] - times[0]) / (len(times) - 1))


def _describe_file(info: MediaInfo) -> dict[str, str]:
    """Makes the rows of the table at the page's head."""
    length = "not known" if info.duration_seconds is None else _format_length(info.duration_seconds)
    rows = {"file": _decode_path(info.path), "container": info.container, "duration": length}
    rows |= {"pictures": "none", "sound": "none"}
    if video := info.video:
        rate = "rate not known" if video.frames_per_second is None else f"{video.frames_per_second:.5g} frames a second"
        count = "" if video.frames is None else f", {video.frames} frames"
        turned = f"{video.rotation_degrees}° clockwise, shown upright here" if video.rotation_degrees else "none"
        rows["pictures"] = f"{video.width} × {video.height} pixels, {rate}{count}"
        rows["frame rate"] = "variable" if video.variable_rate else "constant"
        rows |= {"picture codec": f"{video.codec}, {video.pixel_format}", "rotation": turned}
    if audio := info.audio:
        channels = {1: "mono", 2: "stereo"}.get(audio.channels, f"{audio.channels} channels")
        length = "" if audio.duration_seconds is None else f", {_format_length(audio.duration_seconds)}"
        rows |= {"sound": f"{audio.sample_rate_hz} Hz, {channels}{length}", "sound codec": audio.codec}
    return rows


def _decode_path(path: Path) -> str:
    """Writes a path as text; bytes in it that are not UTF-8 become replacement characters."""
    return os.fsencode(path).decode("utf-8", errors="replace")


def _format_length(seconds: float) -> str:
    """Writes a duration: in seconds, and if that is many, as hours, minutes and seconds too."""
    if seconds < 60:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{seconds:.1f} s ({minutes // 60}:{minutes % 60:02d}:{rest:02d})"


def _make_html(figure: Any) -> str:
    """Makes a piece of HTML of a figure, without Plotly's own JavaScript."""
    config = {"displaylogo": False, "responsive": True}
    return str(figure.to_html(full_html=False, include_plotlyjs=False, config=config))


def _encode_jpeg(sheet: Image.Image) -> str:
    """Encodes the contact sheet in base64, as JPEG: a fifth of the PNG."""
    out = io.BytesIO()
    sheet.save(out, format="JPEG", quality=85)
    return base64.b64encode(out.getvalue()).decode("ascii")
