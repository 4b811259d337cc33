import gzip

import numpy as np
import optuna
import pandas as pd
import pytest
from sqlalchemy import text

from automl.errors import StudyError
from automl.study.storage import Database, open_storage
from automl.study.stored_samples import COLUMNS, load_samples, store_samples


@pytest.fixture(params=["sqlite", "journal", "postgresql"])
def study(request, tmp_path):
    names = {"sqlite": f"sqlite:///{tmp_path}/study.db", "journal": str(tmp_path / "study.log")}
    url = names.get(request.param) or request.getfixturevalue("postgres")
    return optuna.create_study(study_name="tones", storage=open_storage(url))


def table_of(count, seed=0):
    """Samples of random names, which do not become small: 40,000 are more than one row of a database holds."""
    random = np.random.default_rng(seed)
    names = [f"{random.bytes(24).hex()} ü,\"'.png" for _ in range(count)]
    samples = pd.DataFrame({"path": [f"/here/{name}" for name in names], "name": names})
    return samples.assign(
        label=random.integers(0, 3, count),
        group=[name if k % 3 else "person, 1" for k, name in enumerate(samples["path"])],
        split=random.choice(["train", "validation", "holdout"], count),
        domain="",
        bytes=random.integers(-1, 10**10, count),
        content=["0123456789abcdef" if k % 7 == 0 else "" for k in range(count)],
    )


@pytest.mark.parametrize("count", [5, 40_000])
def test_samples_come_back_as_they_were_without_paths(study, count):
    table = table_of(count)
    store_samples(study, table)
    loaded = load_samples(study)
    own = table["group"] == table["path"]
    assert loaded.equals(table.assign(group=table["group"].where(~own, ""))[[*COLUMNS]])
    assert "/here/" not in loaded.to_csv()


def test_they_are_written_over_those_of_a_study_that_had_the_same_number(study):
    store_samples(study, table_of(40_000))
    store_samples(study, table_of(5, seed=1))
    assert len(load_samples(study)) == 5


def test_what_every_look_reads_does_not_hold_them(study):
    store_samples(study, table_of(5))
    assert study._storage.get_study_system_attrs(study._study_id) == {}


def test_a_study_of_an_earlier_version_has_none(study):
    assert load_samples(study) is None


@pytest.mark.parametrize(
    "content",
    [b"no gzip", gzip.compress(b"name,label\na,0\n"), gzip.compress(b"x" * 999)[:-9]],
    ids=["no gzip", "other columns", "cut short"],  # the contents hold the time
)
def test_damaged_ones_are_an_error(study, tmp_path, content):
    store_samples(study, table_of(5))
    if isinstance(study._storage, Database):
        with study._storage.engine.begin() as connection:
            connection.execute(text("UPDATE automl_samples SET content = :content"), {"content": content})
    else:
        (file,) = tmp_path.rglob("samples.csv.gz")
        file.write_bytes(content)
    with pytest.raises(StudyError, match="the samples of study 'tones' in its storage are damaged"):
        load_samples(study)
