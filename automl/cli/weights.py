"""`automl weights`: what to fetch for a machine without the hub, and where to put it."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from automl.cli.options import options_from

if TYPE_CHECKING:  # the library is imported late: `automl --help` is instant
    from automl.backbones.weight_files import WeightFile as Published


@options_from("weights_dir")
def weights(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME…", help="timm names or wildcards: 'vit_base_patch16_dinov3*'.")
    ],
    **settings: Any,
) -> None:
    """Says which file holds the weights of a backbone, and where it is put on a machine that cannot reach the hub.

    Nothing is fetched. Of files that are here, the SHA-256 digest is printed, which the hub shows as well.

    Example: automl weights 'vit_*_patch16_dinov3.*' --weights-dir weights
    """
    from automl.backbones.weight_files import find_weight_files
    from automl.backbones.weights import digest_file
    from automl.cli.json_objects import WeightFile, WeightsResult
    from automl.cli.json_output import write_result

    files = []
    for number, file in enumerate(find_weight_files(names, settings.get("weights_dir"))):
        digest = digest_file(file.path) if file.path is not None else None
        typer.echo("\n".join([""] * (number > 0) + _describe_file(file, digest)))
        known = vars(file) | {"places": list(file.places), "path": str(file.path) if file.path else None}
        files.append(WeightFile(**known, sha256=digest))
    write_result(WeightsResult(files=files))


def _describe_file(file: "Published", digest: str | None) -> list[str]:
    """Writes what is known of a file, one line a point."""
    from automl.units import format_bytes

    first, *others = (path.replace("*", "REVISION") for path in file.places)
    here = "no: neither in --weights-dir nor in the hub's cache"
    if file.path is not None:
        here = f"{file.path} (sha256 {digest})"
    return [
        file.backbone,
        f"  on the hub:  {f'{file.file} of {file.repository}' if file.repository else 'timm names no repository'}",
        f"  size:        about {format_bytes(file.size_bytes)} ({file.size_bytes:,} bytes; computed, 4 a weight)",
        f"  licence:     {file.licence or 'timm names none'}",
        f"  put it:      DIR/{first}, and give --weights-dir DIR",
        *(f"  or:          DIR/{path}" for path in others),
        f"  here:        {here}",
    ]
