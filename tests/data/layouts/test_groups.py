import pandas as pd
import pytest

from automl.data.dataset import open_dataset
from automl.data.layouts.groups import with_groups
from automl.errors import DataError
from automl.spec import DataSpec


def samples(*names, groups=None, paths=None):
    table = {"path": paths or [f"/data/set/{name}" for name in names], "name": names}
    return pd.DataFrame({**table, "group": groups or [""] * len(names)}, dtype=str)


def groups_of(folder, table, text):
    groups_file(folder, text)
    found, problems = with_groups(table, folder, None)
    return found.tolist(), problems


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
    groups, problems = with_groups(samples("a.mp4", "videos/b.mp4", "c.mp4"), tmp_path, None)
    assert (groups.tolist(), problems) == (["x", "x", "y"], [])


def test_groups_are_found_in_a_folder_too_many(tmp_path):
    (tmp_path / "archive/data").mkdir(parents=True)
    (tmp_path / "archive/data/groups.csv").write_text("file,group\na.mp4,x\n")
    assert with_groups(samples("a.mp4"), tmp_path, None)[0].tolist() == ["x"]


@pytest.mark.parametrize("front", ["", "./", "/home/me/x/", "C:\\data\\x\\", "set/train/", "x/train/"])
def test_files_of_one_name_get_the_group_of_their_own_folder(tmp_path, front):
    table = samples("train/fake/0.jpg", "train/fake/1.jpg", "train/real/0.jpg", "train/real/1.JPG")
    rows = "".join(f"{front}{kind}/{k}.jpg,{kind[0]}{k}\n" for kind in ("real", "fake") for k in range(2))
    assert groups_of(tmp_path, table, f"file,group\n{rows}") == (["f0", "f1", "r0", "r1"], [])


def test_files_that_are_not_listed_get_no_group_of_another(tmp_path):
    table = samples(*(f"{kind}/{k}.jpg" for kind in ("fake", "real") for k in range(3)))
    groups, problems = groups_of(tmp_path, table, "file,group\nreal/0.jpg,a\nreal/1.jpg,a\nreal/2.jpg,b\n")
    assert groups == ["", "", "", "a", "a", "b"]
    assert problems == ["groups.csv names no group of 3 samples: 'fake/0.jpg', 'fake/1.jpg', 'fake/2.jpg'"]


def test_a_file_that_is_missing_is_not_taken_from_another_folder(tmp_path):
    table = samples("train/0.jpg", "train/1.jpg", "train/2.jpg", "test/3.jpg")
    text = "file,group\n" + "".join(f"train/{k}.jpg,{k}\n" for k in range(4))
    assert groups_of(tmp_path, table, text)[0] == ["0", "1", "2", ""]


def test_a_table_of_groups_may_be_of_many_more_files(tmp_path):
    table = samples("real/0.jpg", "real/1.jpg")
    text = "file,group\n" + "".join(f"{kind}/{k}.jpg,{kind}{k}\n" for kind in ("fake", "real") for k in range(9))
    assert groups_of(tmp_path, table, text) == (["real0", "real1"], [])


def test_names_may_be_those_of_the_label_file(tmp_path):
    table = samples("1", "2", "10", paths=[f"/data/images/{name}.png" for name in ("0001", "0002", "0010")])
    assert groups_of(tmp_path, table, "id,group\n1,a\n2,a\n10,b\n") == (["a", "a", "b"], [])
    table = samples("A", "B", paths=["/data/images/a.png", "/data/images/b.png"])
    assert groups_of(tmp_path, table, "id,group\na,x\nb,y\n") == (["x", "y"], [])


def test_of_files_that_differ_in_ending_the_one_that_is_named_counts(tmp_path):
    table = samples("x/a.jpg", "x/a.png", "x/b.png")
    assert groups_of(tmp_path, table, "file,group\na.png,1\na.jpg,2\nb,3\n") == (["2", "1", "3"], [])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,group\n0.jpg,p\n", r"'0.jpg' may be 'fake/0.jpg', 'real/0.jpg'; write the names with their folder"),
        ("file,group\n1.jpg,p\n1.jpg,q\n", "'1.jpg' is in two groups, 'p' and 'q'; leave one"),
        ("file,group\nreal/1.jpg,p\n1,q\n", "'1' is in two groups, 'p' and 'q'; leave one"),
    ],
)
def test_a_name_must_be_one_file_of_one_group(tmp_path, text, said):
    groups_file(tmp_path, text)
    with pytest.raises(DataError, match=said):
        with_groups(samples("fake/0.jpg", "real/0.jpg", "real/1.jpg"), tmp_path, None)


@pytest.mark.parametrize("ending", ["", ".jpg"])
def test_a_table_of_groups_may_lack_its_header(tmp_path, ending):
    table = samples(*(f"real/real{k}.jpg" for k in range(4)))
    text = "".join(f"real{k}{ending},g{k // 2}\n" for k in range(4))
    assert groups_of(tmp_path, table, text) == (["g0", "g0", "g1", "g1"], [])


def test_groups_may_be_called_as_files_are(tmp_path):
    table = samples(*(f"real/{k}.jpg" for k in range(4)), "fake/4.jpg")
    text = "file,group\n" + "".join(f"real/{k}.jpg,{k // 2}\n" for k in range(4)) + "fake/4.jpg,0\n"
    assert groups_of(tmp_path, table, text) == (["0", "0", "1", "1", "0"], [])
    text = "source,clip\nreal/0.jpg,real/1.jpg\nreal/0.jpg,real/0.jpg\nreal/2.jpg,real/2.jpg\n"
    assert groups_of(tmp_path, samples("real/0.jpg", "real/1.jpg", "real/2.jpg"), text)[0] == [
        *("real/0.jpg", "real/0.jpg", "real/2.jpg")
    ]


def test_many_files_of_one_name_in_many_folders_are_quick(tmp_path):
    names = [f"v{k // 20}/frames/{k % 20:03d}.png" for k in range(8_000)]
    text = "file,group\n" + "".join(f"/home/me/x/{name},{name.partition('/')[0]}\n" for name in names)
    groups, problems = groups_of(tmp_path, samples(*names), text)
    assert (groups, problems) == ([name.partition("/")[0] for name in names], [])
