import pandas as pd
import pytest

from automl.data.groups import with_groups
from automl.data.samples import open_dataset
from automl.errors import DataError
from automl.spec import DataSpec


def samples(*names, groups=None):
    return pd.DataFrame({"name": names, "group": groups or [""] * len(names)}, dtype=str)


def groups_file(folder, text, name="groups.csv"):
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_groups_beside_the_data_are_found_by_name_or_by_its_last_part(tmp_path):
    groups_file(tmp_path, "video_name,group\na.mp4,one\nb.mp4,one\nfake/c.mp4,two\n", name="Groups.CSV")
    found, problems = with_groups(samples("real/a.mp4", "b.mp4", "fake/c.mp4"), tmp_path, None)
    assert (found.tolist(), problems) == (["one", "one", "two"], [])


def test_a_group_of_the_label_file_stays_and_who_has_none_is_told(tmp_path):
    file = groups_file(tmp_path, "person;name\nann;a.wav\n", name="people.csv")
    found, problems = with_groups(samples("a.wav", "b.wav", groups=["given", ""]), tmp_path, file)
    assert found.tolist() == ["given", ""]
    assert problems == ["people.csv names no group of 1 samples: 'b.wav'"]


def test_without_a_file_nothing_changes(tmp_path):
    table = samples("a.mp4", groups=["x"])
    assert with_groups(table, tmp_path, None)[0].tolist() == ["x"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("video_name,group\nother.mp4,1\n", r"none of its names is a sample's; the samples are called 'a\.mp4'"),
        ("name,person,clip\na.mp4,ann,1\n", "cannot tell the groups among person, clip; call that column `group`"),
    ],
)
def test_what_is_wrong_with_a_table_of_groups(tmp_path, text, said):
    groups_file(tmp_path, text)
    with pytest.raises(DataError, match=said):
        with_groups(samples("a.mp4"), tmp_path, None)


def test_the_ffdv_layout_with_its_groups(tmp_path):
    (tmp_path / "trainset").mkdir()
    rows, groups = ["video_name,target"], ["video_name,group"]
    for number in range(24):
        (tmp_path / "trainset" / f"{number}.mp4").touch()
        rows.append(f"{number}.mp4,{number % 2}")
        groups.append(f"{number}.mp4,source{number // 4}")
    (tmp_path / "trainset_label.txt").write_text("\n".join(rows))
    groups_file(tmp_path, "\n".join(groups))
    found = open_dataset(DataSpec(path=tmp_path), 0)
    assert (found.format, found.media, found.real_class, found.positive) == ("ffdv", "video", 0, 1)
    assert found.grouped
    assert found.samples.groupby("group")["split"].nunique().max() == 1
    assert set(found.samples["split"]) == {"train", "validation", "holdout"}
    assert not found.problems


def test_the_real_clips_are_grouped(shared):
    found = open_dataset(DataSpec(path=shared / "data" / "ffdv_videos"), 0)
    assert (found.format, found.media, len(found.samples)) == ("ffdv", "video", 23)
    assert found.samples["group"].nunique() == 15


def test_names_of_groups_may_lack_their_endings(tmp_path):
    (tmp_path / "groups.csv").write_text("id,source\nA,x\nb,x\nc,y\n")
    table = pd.DataFrame({"name": ["a.mp4", "videos/b.mp4", "c.mp4"], "group": ""})
    groups, problems = with_groups(table, tmp_path, None)
    assert (groups.tolist(), problems) == (["x", "x", "y"], [])


def test_groups_are_found_in_a_folder_too_many(tmp_path):
    (tmp_path / "archive/data").mkdir(parents=True)
    (tmp_path / "archive/data/groups.csv").write_text("file,group\na.mp4,x\n")
    table = pd.DataFrame({"name": ["a.mp4"], "group": ""})
    assert with_groups(table, tmp_path, None)[0].tolist() == ["x"]
