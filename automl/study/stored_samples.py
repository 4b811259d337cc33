"""The samples of a study in its storage, so that a machine that has not the study's folder can join.

They are a table of their own: the attributes of a study are read at every look, and these may be megabytes. Beside a
journal, which lies on a disk that all its machines share, they are a file.
"""

import gzip
import io
import zlib
from pathlib import Path

import optuna
import pandas as pd
from sqlalchemy import Column, Integer, LargeBinary, MetaData, Table, delete, insert, inspect, select

from automl.errors import StudyError
from automl.files import write_atomically
from automl.study.storage import Database, Journal, repeat_until_answered

COLUMNS = ("name", "label", "group", "split", "domain", "bytes", "content")
"""Of the table. No paths: they are another machine's. The group of a sample that has none is empty."""

_CHUNK_BYTES = 2**20
"""A row of the table; databases take no value of any size in one statement."""

_MOST_BYTES = 2**30
"""Of the table as text: what claims to be larger is none."""

_TABLE = Table(
    "automl_samples",
    MetaData(),
    Column("study_id", Integer, primary_key=True, autoincrement=False),
    Column("part", Integer, primary_key=True, autoincrement=False),
    Column("content", LargeBinary(_CHUNK_BYTES), nullable=False),
)


def store_samples(study: optuna.Study, measured: pd.DataFrame) -> None:
    """Stores the samples of a new study, with what `measure_files` found of their files."""
    groups = measured["group"].where(measured["group"] != measured["path"], "")
    text = measured.assign(group=groups)[[*COLUMNS]].to_csv(index=False, lineterminator="\n")
    content = gzip.compress(text.encode(errors="surrogateescape"), mtime=0)
    storage = study._storage
    if isinstance(storage, Journal):
        with write_atomically(_file_beside(study, storage)) as temporary:
            temporary.write_bytes(content)
    elif isinstance(storage, Database):
        _write_rows(storage, study._study_id, content)


def load_samples(study: optuna.Study) -> pd.DataFrame | None:
    """Loads what `store_samples` stored; None of a study that an earlier version began.

    Raises:
        StudyError: If it is damaged.
    """
    storage, content = study._storage, b""
    if isinstance(storage, Database):
        content = _read_rows(storage, study._study_id)
    elif isinstance(storage, Journal) and (path := _file_beside(study, storage)).exists():
        content = path.read_bytes()
    if not content:
        return None
    try:
        unpacker = zlib.decompressobj(wbits=31)  # gzip
        text = unpacker.decompress(content, _MOST_BYTES)
        if not unpacker.eof:
            raise ValueError("cut short, or too large")
        texts = {name: str for name in COLUMNS if name not in ("label", "bytes")}
        table = pd.read_csv(io.BytesIO(text), dtype=texts, keep_default_na=False, encoding_errors="surrogateescape")
        return table[[*COLUMNS]].astype({"label": "int64", "bytes": "int64"})
    except (zlib.error, ValueError, KeyError) as exc:
        raise StudyError(f"the samples of study {study.study_name!r} in its storage are damaged: {exc}") from exc


@repeat_until_answered
def _write_rows(storage: Database, study_id: int, content: bytes) -> None:
    """Writes the rows of a study over those of a deleted one that had its number."""
    engine = storage.engine
    storage.make_tables(_TABLE.metadata)
    parts = range(0, len(content), _CHUNK_BYTES)
    rows = [
        {"study_id": study_id, "part": number, "content": content[start : start + _CHUNK_BYTES]}
        for number, start in enumerate(parts)
    ]
    with engine.begin() as connection:
        connection.execute(delete(_TABLE).where(_TABLE.c.study_id == study_id))
        for row in rows:
            connection.execute(insert(_TABLE), row)


@repeat_until_answered
def _read_rows(storage: Database, study_id: int) -> bytes:
    """Reads the rows of a study; nothing where there are none."""
    engine = storage.engine
    if not inspect(engine).has_table(_TABLE.name):
        return b""
    query = select(_TABLE.c.content).where(_TABLE.c.study_id == study_id).order_by(_TABLE.c.part)
    with engine.connect() as connection:
        return b"".join(connection.execute(query).scalars())


def _file_beside(study: optuna.Study, storage: Journal) -> Path:
    """Returns the file beside a journal."""
    return storage.folder_of(study._study_id) / "samples.csv.gz"
