"""Serves one study with optuna-dashboard on this machine's loopback address."""

import json
import socketserver
import sys
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna

from automl.dashboard.description import Describer
from automl.dashboard.pictures import Pictures
from automl.dashboard.shown_storage import PictureStore, ShownStorage
from automl.errors import StudyError, first_line
from automl.study.artifacts import fetch_predictions
from automl.study.folder import StudyFolder
from automl.study.setup import load_setup
from automl.study.trial_record import best_first, read_spec

_REFUSED = "automl dashboard only looks at a study, and keeps the notes that you write"


class DashboardServer(socketserver.ThreadingMixIn, WSGIServer):
    """A server with a thread for each request: a picture that is being drawn keeps no other request waiting."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """Prints one line; nothing where a browser has gone away."""
        error = sys.exception()
        if error is not None and not isinstance(error, ConnectionError):
            print(f"warning: a request failed: {first_line(error)}", file=sys.stderr)


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Prints no line for each request."""


def make_dashboard(study: optuna.Study, folder: StudyFolder, port: int) -> DashboardServer:
    """Makes a server that waits on 127.0.0.1 at a port (0: any that is free); it serves when `serve_forever` is called.

    Raises:
        StudyError: If the port is taken.
    """
    from optuna_dashboard import wsgi

    setup = load_setup(study, folder)
    fetch_predictions(study, folder, [trial.number for trial in best_first(study)])
    pictures = Pictures(setup, folder)
    storage = ShownStorage(study, Describer(setup, read_spec(study), folder), pictures)
    app = wsgi(storage, artifact_store=PictureStore(storage, study, pictures))
    try:
        return make_server("127.0.0.1", port, _allow_notes(app), DashboardServer, _QuietHandler)
    except OSError as exc:
        raise StudyError(f"port {port} is taken; give another one with --port") from exc


def _allow_notes(app: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    """Lets requests through that read, or write a note: trials and studies can be changed or deleted by no button."""

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if method in ("GET", "HEAD") or (method == "PUT" and path.endswith("/note")):
            return app(environ, start_response)
        start_response("403 Forbidden", [("Content-Type", "application/json")])
        return [json.dumps({"reason": _REFUSED}).encode()]

    return answer
