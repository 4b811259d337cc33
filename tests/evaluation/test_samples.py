from pathlib import Path

import pytest
from PIL import Image

from automl.errors import DataError, SpecError
from automl.evaluation.samples import match_labels, open_samples
from automl.models.folder import Labels
from automl.spec import LabelledSpec

WORDS = Labels(("fake", "real"), 0, (0.5, 0.5))
NUMBERS = Labels(("0", "1"), 1, (0.5, 0.5), real_class=0)
UNCLEAR = Labels(("0", "1"), 1, (0.5, 0.5))
THREE = Labels(("ant", "bee", "fly"), 2, (1 / 3,) * 3)


def draw(path: Path, *names):
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path / name)


def table(folder, text):
    draw(folder, *(f"{k}.png" for k in range(4)))
    (folder / "labels.csv").write_text(text)
    return folder / "labels.csv"


def open_table(folder, text, model=WORDS, by=(), **options):
    return open_samples(LabelledSpec(path=table(folder, text), by=by), model, **options)


@pytest.mark.parametrize(
    ("found", "model", "layout", "renamed", "wanted"),
    [
        (["real", "fake"], WORDS, "folder", {}, {"real": "real", "fake": "fake"}),
        (["0", "1"], NUMBERS, "table", {}, {"0": "0", "1": "1"}),
        (["fly"], THREE, "folder", {}, {"fly": "fly"}),
        (["0", "1"], WORDS, "ffdi", {}, {"0": "real", "1": "fake"}),
        (["0", "1"], WORDS, "table", {}, {}),
        (["0", "1"], WORDS, "table", {"0": "fake", "1": "real"}, {"0": "fake", "1": "real"}),
        (["REAL", "FAKE"], WORDS, "table", {}, {"REAL": "real", "FAKE": "fake"}),
        (["genuine", "spoof"], NUMBERS, "folder", {}, {"genuine": "0", "spoof": "1"}),
        (["genuine", "spoof"], UNCLEAR, "folder", {}, {}),
        (["genuine", "spoof", "fakes"], NUMBERS, "folder", {}, {}),
        (["Ant", "bee"], THREE, "folder", {}, {"bee": "bee"}),
    ],
)
def test_labels_are_matched_by_name_or_by_what_they_surely_mean(found, model, layout, renamed, wanted):
    class_of, note = match_labels(found, model, layout, renamed)
    assert class_of == wanted
    assert bool(note) == (bool(wanted) and not renamed and list(wanted) != list(wanted.values()))


@pytest.mark.parametrize("renamed", [{"2": "real"}, {"0": "reel"}])
def test_a_name_that_does_not_exist_is_named(renamed):
    with pytest.raises(
        SpecError, match=r"--rename-label .* is not (a label of the data: '0', '1'|a class of the model)"
    ):
        match_labels(["0", "1"], WORDS, "table", renamed)


def test_labels_that_do_not_match_are_listed_on_both_sides(tmp_path):
    with pytest.raises(DataError) as caught:
        open_table(tmp_path, "file,label\n0.png,0\n1.png,1\n2.png,1\n3.png,1\n")
    message = str(caught.value)
    assert "its labels are '1' (3), '0' (1), the model's classes are 'fake', 'real'" in message
    assert "--rename-label 1=fake" in message


UNKNOWN = "file,label\n0.png,ant\n1.png,bee\n2.png,wasp\n3.png,wasp\n"


def test_a_class_the_model_has_not_seen(tmp_path):
    with pytest.raises(DataError, match=r"2 samples are of 1 classes that the model has not seen: 'wasp' \(2\)"):
        open_table(tmp_path, UNKNOWN, THREE)
    found = open_table(tmp_path, UNKNOWN, THREE, ignore_unknown=True)
    assert found.labels.tolist() == [0, 1]
    assert found.unknown == {"wasp": 2}
    assert "2 samples of 1 classes that the model has not seen are left out: 'wasp' (2)" in found.problems
    with pytest.raises(DataError, match="none is the same"):
        open_table(tmp_path, "file,label\n0.png,x\n1.png,y\n", THREE, ignore_unknown=True)


def test_a_folder_by_class_and_its_splits(tmp_path):
    draw(
        tmp_path, *(f"{split}/{name}/{k}.png" for split in ("train", "val") for name in ("real", "fake") for k in "ab")
    )
    draw(tmp_path, "val/fake/c.png")
    whole = open_samples(LabelledSpec(path=tmp_path), WORDS)
    assert len(whole.table) == 9
    assert whole.groups is None
    assert any("all 9 samples are taken, of train, validation" in line for line in whole.notes)
    for name in ("validation", "val"):
        part = open_samples(LabelledSpec(path=tmp_path), WORDS, split=name)
        assert part.labels.tolist() == [0, 0, 0, 1, 1]
    with pytest.raises(DataError, match=r"no split 'holdout'; its splits are validation \(5\), train \(4\)"):
        open_samples(LabelledSpec(path=tmp_path), WORDS, split="holdout")


def test_no_splits_and_no_labels(tmp_path):
    with pytest.raises(DataError, match="the data name no splits; leave out --split"):
        open_table(tmp_path, "file,label\n0.png,real\n1.png,fake\n", split="validation")
    with pytest.raises(DataError, match="one column only; a label file has a file column and a label column"):
        open_table(tmp_path, "file\n0.png\n1.png\n")


BY = "file,label,generator,group,size\n0.png,real,,a,1\n1.png,fake,gan,b,2\n2.png,fake,nan,b,3\n3.png,,gan,c,4\n"


def test_columns_are_kept_with_their_samples(tmp_path):
    found = open_table(tmp_path, BY, by=("generator", "size", "label"))
    assert found.by.to_dict("list") == {
        "generator": ["", "gan", ""],
        "size": ["1", "2", "3"],
        "label": ["real", "fake", "fake"],
    }
    assert found.table["group"].tolist() == ["a", "b", "b"]
    assert found.groups.tolist() == ["a", "b", "b"]
    assert found.take_rows([2]).by["size"].tolist() == ["3"]


def test_a_column_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"--by 'generater' is not one of its columns: .*did you mean 'generator'"):
        open_table(tmp_path, BY, by=("generater",))
    draw(tmp_path / "photos", "real/a.png", "fake/b.png")
    with pytest.raises(DataError, match="--by is for a label file"):
        open_samples(LabelledSpec(path=tmp_path / "photos", by=("generator",)), WORDS)


def test_a_column_of_too_many_values(tmp_path):
    draw(tmp_path, *(f"{k}.png" for k in range(201)))
    rows = "".join(f"{k}.png,{'real' if k % 2 else 'fake'},{k}\n" for k in range(201))
    (tmp_path / "labels.csv").write_text("file,label,person\n" + rows)
    with pytest.raises(DataError, match="--by person: it has 201 different values; name a column of at most 200"):
        open_samples(LabelledSpec(path=tmp_path / "labels.csv", by=("person",)), WORDS)


def test_the_ffdi_layout_keeps_columns_of_each_set(tmp_path):
    for name in ("trainset", "valset"):
        draw(tmp_path / name, "a.png", "b.png")
        (tmp_path / f"{name}_label.txt").write_text(f"img_name,target,kind\na.png,0,{name}\nb.png,1,x\n")
    found = open_samples(LabelledSpec(path=tmp_path, by=("kind",)), WORDS)
    assert found.labels.tolist() == [1, 0, 1, 0]
    assert found.by["kind"].tolist() == ["trainset", "x", "valset", "x"]
    assert "labels are matched by the FFDI layout: 0 is class real, 1 is class fake" in found.notes
