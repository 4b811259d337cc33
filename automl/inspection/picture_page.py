"""The pages of an image file and of a folder with a model's heat maps: what `automl inspect` writes of them.

They are rendered by `pictures.html.jinja`; everything that names of files and classes say is escaped.
"""

from pathlib import Path

from automl.errors import DataError
from automl.files import explain_write_errors, write_text
from automl.inspection.file_maps import FileMaps, RankedFolder, explain_file, rank_folder, refuse_other_media
from automl.inspection.map_sections import encode_scale, make_section, make_tile
from automl.inspection.page import PAGE, Inspection, refuse_file
from automl.models.predict import load
from automl.pages.templates import render_template
from automl.reporter import ShowProgress, show_nothing
from automl.units import format_count

_TEMPLATE = Path(__file__).with_name("pictures.html.jinja")


def inspect_image(
    path: Path,
    folder: Path,
    model: Path,
    device: str = "auto",
    weights_dir: Path | None = None,
    *,
    check: bool = True,
    show_progress: ShowProgress = show_nothing,
) -> Inspection:
    """Writes a page about an image: which parts of it speak for a class, by a trained model.

    Args:
        path: The image.
        folder: Where the page is written; that of an earlier call is replaced.
        model: A folder that `automl train` or `automl ensemble` wrote of images.
        device: auto, cpu, cuda or cuda:N.
        weights_dir: As for `automl.load`.
        check: Whether the maps are checked by occlusion.
        show_progress: As of a reporter.

    Raises:
        SpecError: If the model looks at clips.
        DataError: If the image cannot be read, or the page cannot be written.
    """
    refuse_file(folder)
    loaded = load(model, device, weights_dir)
    refuse_other_media(loaded, path, "image")
    with show_progress("covering patches") as progress:
        maps = explain_file(loaded, path, check=check, progress=progress)
    sections = [make_section(view, maps.class_name, None) for view in maps.views]
    score = f"Probability of class {maps.class_name}: {maps.score:.3f}."
    with explain_write_errors(folder, DataError):
        write_text(folder / PAGE, _render(path.name, maps, [score], sections=sections, checked=check))
    lines = (score, *(sentence for section in sections for sentence in section.sentences))
    return Inspection(folder / PAGE, None, lines)


def inspect_folder(
    path: Path,
    folder: Path,
    model: Path,
    device: str = "auto",
    weights_dir: Path | None = None,
    *,
    most: int = 48,
    show_progress: ShowProgress = show_nothing,
) -> Inspection:
    """Writes a contact sheet of a folder, the files that are most like the positive class first, with their maps.

    With more than two classes, those that the model is least sure of come first. `most` files are shown; the other
    arguments and errors are those of `inspect_image`, and a folder without a file for the model is a DataError.
    """
    refuse_file(folder)
    ranked = rank_folder(load(model, device, weights_dir), path, most, show_progress)
    sentences = _describe_folder(ranked)
    tiles = [make_tile(file, rank) for rank, file in enumerate(ranked.files, start=1)]
    page = _render(path.resolve().name, ranked, sentences, tiles=tiles, notes=ranked.notes)
    with explain_write_errors(folder, DataError):
        write_text(folder / PAGE, page)
    return Inspection(folder / PAGE, None, (*sentences, *ranked.notes))


def _describe_folder(ranked: RankedFolder) -> list[str]:
    """Writes how many files were scored, how many are shown, and how many not."""
    scored = ranked.total - ranked.unreadable
    order = (
        f"the highest probability of class {ranked.positive} first" if ranked.positive
        else "those that the model is least sure of first"
    )  # fmt: skip
    left = scored - len(ranked.files)
    rest = f"; {format_count(left, 'file')} left out (--most)" if left else ", all of them"
    return [f"{format_count(scored, 'file')} scored, {order}: {len(ranked.files)} shown{rest}."]


def _render(name: str, made: FileMaps | RankedFolder, sentences: list[str], **values: object) -> str:
    """Makes the text of a page."""
    defaults: dict[str, object] = {"sections": [], "tiles": [], "notes": (), "checked": False, "heading": "By score"}
    class_name = made.class_name if isinstance(made, FileMaps) else made.positive
    shown = f"class {class_name}" if class_name else "the class it takes the picture for"
    return render_template(
        _TEMPLATE, name=name, sentences=sentences, class_name=shown, scale=encode_scale(), **(defaults | values)
    )
