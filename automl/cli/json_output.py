"""`--json`: objects on standard output, one a line; everything that is for people on standard error.

`automl.cli.main` gives every command the flag. A command hands its result to `write_result`; one that takes long begins
with `start_events` and hands what happens to `write_event`. Without the flag, all of these do nothing.
"""

import functools
import inspect
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from automl import __version__
from automl.cli.json_objects import Event, Failed, Failure, Started, Stopping

_FLAG = "--json"


@dataclass
class _Output:
    """Where objects go, and what was written so far."""

    write: Callable[[bytes], object]
    words: Sequence[str]
    streams: bool = False
    finished: bool = False
    """Whether the result was written."""
    stop_line: str = ""
    """What people were shown at Ctrl-C."""


_output: _Output | None = None


class JsonCommand:
    """A command function with the flag `--json`, which `open_output` has read when the command begins."""

    def __init__(self, function: Callable[..., None]) -> None:
        functools.update_wrapper(self, function)
        self._function = function

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings that have a flag here, as of `SettingsCommand`."""
        return getattr(self._function, "settings", {})

    @property
    def __signature__(self) -> inspect.Signature:
        """The function's own parameters and the flag."""
        help_text = "Print objects (docs/agents.md) on standard output, all else on standard error."
        annotation: Any = Annotated[bool, typer.Option(_FLAG, help=help_text)]
        flag = inspect.Parameter("json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
        own = inspect.signature(self._function, eval_str=True).parameters.values()
        return inspect.Signature([*(item.replace(kind=item.KEYWORD_ONLY) for item in own), flag])

    def __call__(self, **given: Any) -> None:
        """Calls the function."""
        given.pop("json")
        self._function(**given)


@contextmanager
def open_output(words: Sequence[str]) -> Iterator[None]:
    """Keeps standard output for objects if the words of a command hold `--json`; all else goes to standard error."""
    global _output
    options = words[: words.index("--")] if "--" in words else words
    if _FLAG not in options:
        yield
        return
    sys.stdout.flush()
    stream, before = sys.stdout, _output
    kept, descriptor = None, _find_descriptor(stream)
    if descriptor is not None:  # started processes, and what is no Python, write to it as well
        kept = os.dup(descriptor)
        os.dup2(sys.stderr.fileno(), descriptor)
        _output = _Output(functools.partial(_write_bytes, kept), words)
    else:
        _output = _Output(lambda data: stream.write(data.decode()), words)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _output = before
        if kept is not None and descriptor is not None:
            os.dup2(kept, descriptor)
            os.close(kept)


def _find_descriptor(stream: TextIO) -> int | None:
    """Finds the descriptor of the process's own standard output; None where something else stands in for it."""
    return stream.fileno() if stream is sys.__stdout__ else None


def wants_json() -> bool:
    """Returns whether objects are printed."""
    return _output is not None


def start_events(command: str) -> None:
    """Writes that a command that takes long begins; from now on, events are written."""
    if _output is not None:
        _output.streams = True
        write_event(Started(command=command, version=__version__, argv=["automl", *_output.words], pid=os.getpid()))


def write_event(event: Event) -> None:
    """Writes what happened, if the command writes events."""
    if _output is not None and _output.streams:
        _write_object(event)


def write_result(result: object) -> None:
    """Writes what a command has to say, a dataclass of `automl.cli.json_objects`, as its last object."""
    if _output is not None:
        _output.finished = True
        _write_object(result)


def write_stop(line: str) -> None:
    """Writes what follows from Ctrl-C."""
    if _output is not None:
        _output.stop_line = line
        write_event(Stopping(message=line))


def write_failure(code: int, message: str = "") -> None:
    """Writes why a command ended without its result; "": it was stopped. Nothing if there is a result."""
    if _output is not None and not _output.finished:
        _output.finished = True
        text = message or f"stopped; {_output.stop_line}".removesuffix("; ")
        _write_object(Failed(error=Failure(message=text, exit_code=code)))


def _write_object(made: object) -> None:
    """Writes an object in one line, at once: whoever reads follows it."""
    assert _output is not None  # noqa: S101 - the callers looked
    _output.write(f"{json.dumps(make_plain(made), allow_nan=False)}\n".encode())


def _write_bytes(descriptor: int, data: bytes) -> None:
    """Writes without a buffer, which the answer to Ctrl-C, a signal's handler, could not use at the same time."""
    while data:
        data = data[os.write(descriptor, data) :]


def make_plain(value: Any) -> Any:
    """Returns what JSON can hold: dataclasses as mappings, arrays as lists, NaN and infinities as None."""
    if is_dataclass(value):
        return {item.name: make_plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {str(make_plain(key)): make_plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [make_plain(one) for one in value]
    if isinstance(value, str | Path):  # a file's name need not be UTF-8
        return os.fsencode(value).decode("utf-8", errors="replace")
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if hasattr(value, "tolist"):  # NumPy's
        return make_plain(value.tolist())
    return value
