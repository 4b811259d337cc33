"""The command line: parses, calls the library, prints. Nothing heavy is imported before a command needs it."""

import os
import sys
from typing import Annotated

import typer

from automl import __version__
from automl.cli.backbones import backbones
from automl.cli.confirm import confirm
from automl.cli.data import data
from automl.cli.doctor import doctor
from automl.cli.ensemble import ensemble
from automl.cli.export import export
from automl.cli.inspect import inspect
from automl.cli.leaderboard import leaderboard_app
from automl.cli.predict import predict
from automl.cli.probe import probe
from automl.cli.search import search, worker
from automl.cli.space import space_app
from automl.cli.studies import best, dashboard, studies
from automl.cli.train import train
from automl.errors import AutomlError

app = typer.Typer(
    name="automl",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    search,
    best,
    confirm,
    ensemble,
    train,
    predict,
    export,
    studies,
    dashboard,
    data,
    inspect,
    backbones,
    probe,
    doctor,
):
    app.command()(command)
app.command(hidden=True)(worker)
app.add_typer(space_app, name="space")
app.add_typer(leaderboard_app, name="leaderboard")


def _version(wanted: bool) -> None:
    if wanted:
        print(f"automl {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Finds the best timm backbone, and the best way to fine-tune it, under a GPU memory and time budget.

    Sizes: 16GB is 16·10⁹ bytes, 16GiB is 16·2³⁰. Durations: 8h30m, 40m, 90s.

    Example: automl search --data ffdi/ --gpu-mem 16GB --trials 50
    """


_INTERRUPTED = 130


def run() -> None:
    """Runs the command line; a mistake the user can mend is one clear message and exit code 2."""
    # CUDA would order unlike GPUs by speed, NVML orders them by bus: `cuda:1` must be the same one for both.
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    try:
        app()
    except AutomlError as exc:
        print(f"Error: {exc}", file=sys.stderr)
        sys.exit(2)
    except (KeyboardInterrupt, SystemExit) as exc:
        if isinstance(exc, SystemExit) and exc.code != _INTERRUPTED:
            raise
        print("stopped", file=sys.stderr)  # Typer makes an exit code of Ctrl-C, and says nothing
        sys.exit(_INTERRUPTED)
    except BrokenPipeError:
        # `automl backbones | head`: the reader has seen enough. Python would complain again when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as exc:
        if exc.errno not in (28, 122):  # no space, no quota
            raise
        print(
            f"Error: the disk is full ({exc.filename or 'no file named'}); free some space and try again",
            file=sys.stderr,
        )
        sys.exit(2)
