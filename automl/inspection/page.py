"""The page and the contact sheet of one clip: what `automl inspect` writes of it.

The page is one HTML file that opens without a network: Plotly's JavaScript is in it, and it may load nothing. It is
rendered by `page.html.jinja`; everything a file says of itself is escaped.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from automl.errors import DataError
from automl.files import explain_write_errors, write_atomically, write_text
from automl.inspection.clip import COMPARED_SIDE, IMAGES, LEAST_CHANGE, LEAST_PAIRS, MOST_Z, Clip, analyse_clip
from automl.inspection.contact_sheet import draw_contact_sheet
from automl.inspection.figures import (
    describe_features,
    describe_loudest,
    draw_features,
    draw_mel,
    draw_timeline,
    find_highest,
)
from automl.media.info import MediaInfo
from automl.media.kinds import find_medium_at
from automl.media.opening import require
from automl.pages.figures import Chart
from automl.pages.pictures import encode_picture
from automl.pages.templates import render_template
from automl.reporter import ShowProgress, show_nothing

if TYPE_CHECKING:  # they bring torch, which only scores need
    from automl.inspection.map_sections import MapSection
    from automl.inspection.score_timeline import ClipScores

PAGE, SHEET = "inspect.html", "frames.png"
"""Names of the files that are written; the sheet only of a video."""


@dataclass(frozen=True)
class Inspection:
    """The files written (the sheet only of a video), and what is most to be known, in sentences."""

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
    *,
    check: bool = True,
    show_progress: ShowProgress = show_nothing,
) -> Inspection:
    """Writes the page and the contact sheet of a video or a sound file; files of an earlier call are replaced.

    `frames`, at least 2, are compared, evenly placed; `face_model` is a YuNet ONNX file (None: that of the `media`
    extra). `model` is a folder that `automl train` wrote of clips, whose scores and heat maps are shown; it runs on
    `device` (auto, cpu, cuda or cuda:N), and `weights_dir` is as for `automl.load`. `check`: whether the maps are
    checked by occlusion; `show_progress` is as of a reporter.
    """
    require("plotly")  # a missing one is an error before a long clip is decoded
    refuse_file(folder)
    if model is None:
        with show_progress("looking"):
            return write_page(analyse_clip(path, frames, face_model), None, folder)
    from automl.inspection.file_maps import explain_file
    from automl.inspection.map_sections import make_section
    from automl.inspection.score_timeline import load_clip_model, score_clip

    loaded = load_clip_model(model, device, weights_dir)
    with show_progress("looking"):
        clip = analyse_clip(path, frames, face_model)
        scores = score_clip(loaded, path, frames)
    with show_progress("making maps") as progress:
        maps = explain_file(loaded, path, check=check, progress=progress)
    sections = [make_section(view, maps.class_name, clip.unit) for view in maps.views if view.pictures]
    return write_page(clip, scores, folder, sections)


def is_image(path: Path) -> bool:
    """Returns whether a file is an image, by its name, or by its content where that says nothing."""
    return path.suffix.lower() in IMAGES or find_medium_at(path) == "image"


def refuse_file(folder: Path) -> None:
    """Makes sure that the page's folder is no file.

    Raises:
        DataError: If it is.
    """
    if folder.exists() and not folder.is_dir():
        raise DataError(f"cannot write into {folder}: it is a file; name another folder with --out")


def write_page(clip: Clip, scores: "ClipScores | None", folder: Path, maps: "Sequence[MapSection]" = ()) -> Inspection:
    """Writes the page and the contact sheet of a clip that was analysed; `scores` are None where there is no model."""
    sheet = None if clip.pictures is None else draw_contact_sheet(clip.pictures, clip.unit)
    page = render_page(clip, sheet, scores, maps)
    with explain_write_errors(folder, DataError):
        write_text(folder / PAGE, page)
        if sheet is not None:
            with write_atomically(folder / SHEET) as temporary:
                sheet.save(temporary, format="PNG")
    agreements = [f"Maps of {section.title}: {section.sentences[0]}" for section in maps if section.sentences]
    lines = (*clip.notes, *_describe_unusual(clip), *_describe_scores(clip, scores), *agreements)
    return Inspection(folder / PAGE, None if sheet is None else folder / SHEET, lines)


def render_page(
    clip: Clip, sheet: Image.Image | None, scores: "ClipScores | None", maps: "Sequence[MapSection]" = ()
) -> str:
    """Makes the text of the page; what is put in is escaped unless the template says that it is HTML."""
    unit, figures = clip.unit, dict[str, Chart]()
    unusual, sentences = _describe_unusual(clip), _describe_scores(clip, scores)
    if clip.pictures is not None and len(clip.pictures.frames) > 1:
        figure = draw_timeline(clip.pictures, unit, scores)
        figures["similarity"] = Chart("Similarity over time", " ".join(unusual) or "Too few frames to compare.", figure)
    elif scores is not None and scores.score is not None:
        figures["scores"] = Chart("Score over time", sentences[0], draw_timeline(None, unit, scores))
    if clip.sound is not None:
        figures["mel"] = Chart("Log-mel spectrogram", describe_loudest(clip.sound, unit), draw_mel(clip.sound, unit))
        figures["features"] = Chart(
            "Seven features of the sound", describe_features(clip.sound), draw_features(clip.sound, unit)
        )
    return render_template(
        Path(__file__).with_name("page.html.jinja"),
        name=_decode_path(Path(clip.info.path.name)),
        properties=_describe_file(clip.info),
        notes=clip.notes,
        sentences=sentences,
        scores=scores,
        figures=figures,
        sheet=None if sheet is None else encode_picture(sheet),
        clip=clip,
        step=_describe_step(clip),
        rule={"z": MOST_Z, "least": LEAST_CHANGE, "pairs": LEAST_PAIRS, "side": COMPARED_SIDE},
        maps=maps,
        scale=_encode_scale() if maps else "",
    )


def _encode_scale() -> str:
    """Encodes the colours of the maps; only a page with maps needs torch."""
    from automl.inspection.map_sections import encode_scale

    return encode_scale()


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
