"""Small look-alikes of public data sets, laid out as they are downloaded."""

import json

import pytest

from automl.errors import DataError
from tests.fixtures.real_names import classes_of, files, fill, read, splits_of, tab


def group_of(found, name):
    return found.samples.loc[found.samples["name"].str.endswith(name), "group"].item()


def test_140k_real_and_fake_faces(tmp_path):
    rows = {}
    for split, start in (("train", 0), ("valid", 100), ("test", 200)):
        for label, kind in enumerate(("fake", "real")):
            names = [f"{kind[0]}{k}.jpg" for k in range(start, start + 8)]
            fill(tmp_path / "real_vs_fake/real-vs-fake" / split / kind, names)
            paths = [f"{split}/{kind}/{name}" for name in names]
            rows[split] = [*rows.get(split, []), *((p, label, kind, p) for p in paths)]
    for split, found in rows.items():
        header = ["", "original_path", "id", "label", "label_str", "path"]
        body = [[i, f"/kaggle/x/{p}", 100 + i, label, kind, p] for i, (p, label, kind, _) in enumerate(found)]
        tab(tmp_path / f"{split}.csv", [header, *body])
    found = read(tmp_path)
    assert (found.format, found.classes) == ("folder", ("fake", "real"))
    assert splits_of(found) == {"train": 16, "validation": 16, "holdout": 16}
    assert found.remarks[0] == "all files lie in real_vs_fake/real-vs-fake/"
    assert "'test.csv', 'train.csv', 'valid.csv'; the folders are taken as the classes" in found.remarks[1]
    table = read(tmp_path, format="table", split_column=None)
    assert (table.classes, splits_of(table)) == (("0", "1"), {"train": 16, "validation": 16, "holdout": 16})
    one = read(tmp_path / "train.csv")
    assert (len(one.samples), one.classes) == (16, ("0", "1"))


def test_asvspoof_2019(tmp_path):
    for split, short, letter in (("train", "train.trn", "T"), ("dev", "dev.trl", "D"), ("eval", "eval.trl", "E")):
        names = [f"LA_{letter}_{1000 + k}" for k in range(12)]
        files(tmp_path / f"ASVspoof2019_LA_{split}/flac", [f"{name}.flac" for name in names])
        rows = [
            (f"LA_{k % 4:04d}", name, "-", f"A0{k % 3}" if k % 2 else "-", "spoof" if k % 2 else "bonafide")
            for k, name in enumerate(names)  # the first row repeats its "-", as the real one does
        ]
        tab(tmp_path / f"ASVspoof2019_LA_cm_protocols/ASVspoof2019.LA.cm.{short}.txt", rows, " ")
    rows = [(f"LA_000{k}", f"LA_D_{1000 + k}", "bonafide", "target") for k in range(6)]
    tab(tmp_path / "ASVspoof2019_LA_asv_protocols/ASVspoof2019.LA.asv.dev.female.trl.txt", rows, " ")
    found = read(tmp_path)
    assert (found.format, found.media, found.classes) == ("table", "sound", ("bonafide", "spoof"))
    assert splits_of(found) == {"train": 12, "validation": 12, "holdout": 12}
    assert classes_of(found)["LA_T_1000.flac"] == "bonafide"
    assert any(
        "file: column_2, label: column_5 (it has no header); not used: column_1" in line for line in found.remarks
    )
    assert (found.real_class, found.positive) == (0, 1)
    grouped = read(tmp_path, group_column="column_1")
    assert grouped.grouped


def test_dfdc(tmp_path):
    part = tmp_path / "dfdc_train_part_0"
    records = {}
    for k in range(10):
        records[f"r{k}.mp4"] = {"label": "REAL", "split": "train", "original": None}
        records[f"f{k}.mp4"] = {"label": "FAKE", "split": "train", "original": f"r{k}.mp4"}
    files(part, records)
    (part / "metadata.json").write_text(json.dumps(records))
    found = read(tmp_path)
    assert (found.format, found.media, found.classes) == ("table", "video", ("FAKE", "REAL"))
    assert found.grouped
    groups = found.samples.groupby("group")["split"].nunique()
    assert (len(groups), groups.max()) == (10, 1)
    assert splits_of(found)["validation"] >= 4  # `train` says nothing of what validates
    assert any("file: file, label: label, group: original, split: split" in line for line in found.remarks)


def test_celeb_df(tmp_path):
    for k in range(6):
        files(tmp_path, [f"Celeb-real/id{k}_0000.mp4", f"YouTube-real/{k:05d}.mp4"])
        files(tmp_path, [f"Celeb-synthesis/id{k}_id{(k + 1) % 6}_0000.mp4"])
    test = ["1 YouTube-real/00000.mp4", "1 Celeb-real/id0_0000.mp4", "0 Celeb-synthesis/id0_id1_0000.mp4"]
    (tmp_path / "List_of_testing_videos.txt").write_text("\n".join(test))
    found = read(tmp_path)
    assert found.classes == ("fake", "real")
    assert splits_of(found)["holdout"] == 3
    assert group_of(found, "id3_id4_0000.mp4") == group_of(found, "Celeb-real/id3_0000.mp4")
    assert found.remarks[0] == "Celeb-DF: 3 of the 3 videos of List_of_testing_videos.txt are the holdout"
    assert found.remarks[1] == "Celeb-DF: a forged video and the one it was made of are a group (18 of 18 files)"


def one_side_each(found, folder_of):
    """Whether the files of one folder are of one group and all groups lie on one side of the splits."""
    folders = found.samples["name"].map(folder_of)
    return (
        found.samples.groupby(folders)["group"].nunique().max() == 1
        and found.samples.groupby("group")["split"].nunique().max() == 1
    )


@pytest.mark.parametrize("kind", ["", "frames/"])
@pytest.mark.parametrize("frame", ["{}", "{:03d}", "{:05d}"])
def test_frames_of_celeb_df(tmp_path, kind, frame):
    top = tmp_path / "Celeb-DF-v2"
    for k in range(12):
        frames = [f"{frame.format(i)}.png" for i in range(3)]
        fill(top / f"Celeb-real/{kind}id{k}_0000", frames)
        fill(top / f"YouTube-real/{kind}{k:05d}", frames)
        fill(top / f"Celeb-synthesis/{kind}id{k}_id{k ^ 1}_0000", frames)
    test = ["1 YouTube-real/00000.mp4", "1 Celeb-real/id0_0000.mp4", "0 Celeb-synthesis/id0_id1_0000.mp4"]
    (top / "List_of_testing_videos.txt").write_text("\n".join([*test, "1 Celeb-real/id99_0000.mp4"]))
    found = read(tmp_path)
    assert found.remarks[:2] == (
        "Celeb-DF: 3 of the 4 videos of List_of_testing_videos.txt are the holdout",
        "Celeb-DF: a forged video and the one it was made of are a group (108 of 108 files)",
    )
    held = found.samples[found.samples["split"] == "holdout"]
    assert {name.split("/")[-2] for name in held["name"]} == {"00000", "id0_0000", "id0_id1_0000"}
    assert one_side_each(found, lambda name: name.split("/")[-2])
    assert group_of(found, f"id3_id2_0000/{frame.format(0)}.png") == group_of(found, f"/id3_0000/{frame.format(2)}.png")


def test_a_test_list_of_videos_that_are_not_there_splits_nothing(tmp_path):
    for k in range(12):
        files(tmp_path, [f"Celeb-real/id{k}_0000.mp4", f"Celeb-synthesis/id{k}_id1_0000.mp4"])
    files(tmp_path, ["Celeb-real/of_another.mp4"])
    (tmp_path / "List_of_testing_videos.txt").write_text("1 Celeb-real/id99_0000.mp4\n")
    found = read(tmp_path)
    assert splits_of(found).keys() == {"train", "validation", "holdout"}
    assert any(
        "is not used: none of its videos is there: 'Celeb-real/id99_0000.mp4'" in line for line in found.problems
    )
    assert any("24 of 25 files" in line for line in found.remarks)
    assert any("1 files are of no group" in line and "of_another.mp4" in line for line in found.problems)


def test_faceforensics(tmp_path):
    for k in range(12):
        files(tmp_path / "original_sequences/youtube/c23/videos", [f"{k:03d}.mp4"])
        files(tmp_path / "manipulated_sequences/Deepfakes/c23/videos", [f"{k:03d}_{k ^ 1:03d}.mp4"])
    found = read(tmp_path)
    assert (found.classes, found.real_class) == (("fake", "real"), 1)
    assert group_of(found, "/004.mp4") == group_of(found, "/005.mp4") == group_of(found, "/005_004.mp4")
    assert found.samples.groupby("group")["split"].nunique().max() == 1
    assert "FaceForensics++: videos of one source, original or forged, are a group (24 of 24 files)" in found.remarks
    assert not found.problems


@pytest.mark.parametrize("frame", ["{:03d}", "{:04d}"])
def test_frames_of_faceforensics(tmp_path, frame):
    for k in range(24):
        frames = [f"{frame.format(10 * i)}.png" for i in range(3)]
        fill(tmp_path / f"original_sequences/youtube/c23/frames/{k:03d}", frames)
        fill(tmp_path / f"manipulated_sequences/Deepfakes/c23/frames/{k:03d}_{k ^ 1:03d}", frames)
    found = read(tmp_path)
    assert found.samples["group"].nunique() == 12
    assert splits_of(found).keys() == {"train", "validation", "holdout"}
    assert one_side_each(found, lambda name: name.split("/")[-2])
    assert "FaceForensics++: videos of one source, original or forged, are a group (144 of 144 files)" in found.remarks


def test_frames_of_unknown_videos_get_no_group_by_their_number(tmp_path):
    for k in range(12):
        fill(tmp_path / f"original_sequences/youtube/c23/frames/video{k}", ["000.png", "010.png"])
        fill(tmp_path / f"manipulated_sequences/Deepfakes/c23/frames/{k:03d}_{k ^ 1:03d}", ["000.png", "010.png"])
    found = read(tmp_path)
    assert any("(24 of 48 files)" in line for line in found.remarks)
    assert any("24 files are of no group" in line and "video0/000.png" in line for line in found.problems)


@pytest.mark.parametrize("frame", ["", "_012"])
def test_frames_that_are_called_as_their_video(tmp_path, frame):
    for k in range(24):
        fill(tmp_path / "original_sequences/youtube/c23/faces", [f"{k:03d}{frame}.png"])
        fill(tmp_path / "manipulated_sequences/Deepfakes/c23/faces", [f"{k:03d}_{k ^ 1:03d}{frame}.png"])
    found = read(tmp_path)
    assert found.samples["group"].nunique() == 12
    assert group_of(found, f"/004{frame}.png") == group_of(found, f"/005_004{frame}.png")


def test_actors_masks_and_compressions_of_faceforensics(tmp_path):
    for k in range(1, 13):
        for compression in ("c23", "c40"):
            files(tmp_path / "original_sequences/actors" / compression / "videos", [f"{k:02d}__kitchen_pan.mp4"])
            forged = (
                f"{k:02d}_{k % 12 + 1:02d}__exit_phone_room__0XUW13RW.mp4" if k % 2 else f"{k:02d}_{k:02d}__x__Y.mp4"
            )
            files(tmp_path / "manipulated_sequences/DeepFakeDetection" / compression / "videos", [forged])
        files(tmp_path / "manipulated_sequences/DeepFakeDetection/masks/videos", [forged])
    found = read(tmp_path)
    assert (len(found.samples), found.samples["group"].nunique()) == (48, 6)
    assert "FaceForensics++: masks/ is no part of the videos: 12 files are not read" in found.remarks
    assert "FaceForensics++: c23 and c40 of one video all count, and are of one group" in found.remarks


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            [
                "manipulated_sequences/Deepfakes/c23/videos/{:03d}_001.mp4",
                "manipulated_sequences/F2F/raw/videos/{}.mp4",
            ],
            r"this is FaceForensics\+\+ without original_sequences/, all of it is fake; put that beside",
        ),
        (
            ["original_sequences/youtube/c23/videos/{:03d}.mp4", "original_sequences/actors/c23/videos/{}.mp4"],
            r"this is FaceForensics\+\+ without manipulated_sequences/, all of it is real",
        ),
        (["Celeb-real/id{}_0000.mp4", "YouTube-real/{:05d}.mp4"], "this is Celeb-DF without Celeb-synthesis/"),
        (["Celeb-synthesis/id{}_id1_0000.mp4"], "this is Celeb-DF without Celeb-real/ or YouTube-real/"),
    ],
)
def test_half_of_a_set_is_not_read_as_classes(tmp_path, names, said):
    for k in range(12):
        files(tmp_path / "x", [name.format(k) for name in names])
    with pytest.raises(DataError, match=said):
        read(tmp_path)


def test_folders_beside_half_of_a_set_are_classes(tmp_path):
    for k in range(12):
        files(tmp_path, [f"Celeb-real/id{k}_0000.mp4", f"swapped/{k}.mp4"])
    assert read(tmp_path).classes == ("Celeb-real", "swapped")


def test_folders_beside_a_set_are_left_out_with_a_count(tmp_path):
    for k in range(12):
        files(tmp_path, [f"Celeb-real/id{k}_0000.mp4", f"Celeb-synthesis/id{k}_id1_0000.mp4"])
    files(tmp_path, ["mine/a.mp4", "mine/b.mp4", "loose.mp4"])
    found = read(tmp_path)
    assert found.classes == ("fake", "real")
    assert "mine/ is no part of Celeb-DF and is left out: 2 files" in found.problems
    assert "what lies beside the folders is no part of Celeb-DF and is left out: 1 files" in found.problems


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_hugging_face_image_folder(tmp_path, suffix):
    for split, n in (("train", 12), ("validation", 6)):
        names = fill(tmp_path / split, [f"{split}{k}.png" for k in range(n)])
        rows = [{"file_name": name, "label": "cat" if k % 2 else "dog", "note": "x"} for k, name in enumerate(names)]
        if suffix == "csv":
            tab(tmp_path / split / "metadata.csv", [list(rows[0]), *(row.values() for row in rows)])
        else:
            (tmp_path / split / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = read(tmp_path, holdout_fraction=0)
    assert (found.classes, splits_of(found)) == (("cat", "dog"), {"train": 12, "validation": 6})


def test_isic_one_hot(tmp_path):
    names = [f"ISIC_{k:07d}" for k in range(30)]
    fill(tmp_path / "ISIC2018_Task3_Training_Input", [f"{name}.jpg" for name in names])
    header = ["image", "MEL", "NV", "BCC"]
    rows = [(name, *(f"{float(k % 3 == i)}" for i in range(3))) for k, name in enumerate(names)]
    tab(tmp_path / "ISIC2018_Task3_Training_GroundTruth.csv", [header, *rows])
    found = read(tmp_path)
    assert found.classes == ("BCC", "MEL", "NV")
    assert classes_of(found)["ISIC_0000000.jpg"] == "MEL"
    assert "file: image, label: one-hot in MEL, NV, BCC" in found.remarks[0]


def test_ham10000(tmp_path):
    for k in range(24):
        fill(tmp_path / f"HAM10000_images_part_{1 + k % 2}", [f"ISIC_{k:07d}.jpg"])
    rows = [(f"HAM_{k // 2}", f"ISIC_{k:07d}", ("nv", "mel")[k // 2 % 2], "histo", 40 + k, "male") for k in range(24)]
    tab(tmp_path / "HAM10000_metadata.csv", [("lesion_id", "image_id", "dx", "dx_type", "age", "sex"), *rows])
    found = read(tmp_path)
    assert (found.format, found.classes, len(found.samples)) == ("table", ("mel", "nv"), 24)
    assert "not used: lesion_id, dx_type, age, sex (to use it: --group-column lesion_id)" in found.remarks[0]


def test_kaggle_dog_breeds(tmp_path):
    for folder, start in (("train", 0), ("test", 100)):
        fill(tmp_path / folder, [f"{k:032x}.jpg" for k in range(start, start + 20)])
    tab(tmp_path / "labels.csv", [("id", "breed"), *((f"{k:032x}", ("pug", "beagle")[k % 2]) for k in range(20))])
    tab(
        tmp_path / "sample_submission.csv",
        [("id", "beagle", "pug"), *((f"{k:032x}", 0.5, 0.5) for k in range(100, 120))],
    )
    found = read(tmp_path)
    assert (found.classes, len(found.samples)) == (("beagle", "pug"), 20)
    assert any("20 more files lie there, and no row names them" in line for line in found.remarks)


def test_aptos_train_and_test_tables_are_one_set(tmp_path):
    fill(tmp_path / "train_images", [f"a{k}.png" for k in range(20)])
    fill(tmp_path / "test_images", [f"b{k}.png" for k in range(6)])
    tab(tmp_path / "train.csv", [("id_code", "diagnosis"), *((f"a{k}", k % 2) for k in range(20))])
    tab(tmp_path / "test.csv", [("id_code",), *((f"b{k}",) for k in range(6))])
    found = read(tmp_path)
    assert (len(found.samples), found.classes) == (20, ("0", "1"))


def test_a_test_table_without_labels_is_no_holdout(tmp_path):
    fill(tmp_path / "images", [f"{k}.png" for k in range(30)])
    tab(tmp_path / "train.csv", [("file", "label", "width"), *((f"{k}.png", k % 2, 3) for k in range(20))])
    tab(tmp_path / "test.csv", [("file", "width"), *((f"{k}.png", 3 + k % 2) for k in range(20, 30))])
    found = read(tmp_path)
    assert (len(found.samples), found.classes) == (20, ("0", "1"))
    assert "test.csv has no column 'label': its 10 rows have no labels and are not used" in found.remarks


def test_celeba_partition_and_other_split_columns(tmp_path):
    names = fill(tmp_path / "images", [f"{k}.png" for k in range(30)])
    rows = [
        (n, k % 2, k // 10, ("Training", "PublicTest", "PrivateTest")[k // 10], k >= 20, k % 5)
        for k, n in enumerate(names)
    ]
    tab(tmp_path / "labels.csv", [("file", "label", "partition", "Usage", "is_valid", "fold"), *rows])
    line = read(tmp_path).remarks[0]
    assert line.endswith("not used: partition, Usage, is_valid, fold (to use it: --split-column partition)")
    every = {"train": 10, "validation": 10, "holdout": 10}
    assert splits_of(read(tmp_path, split_column="partition")) == every
    assert splits_of(read(tmp_path, split_column="Usage")) == every
    assert splits_of(read(tmp_path, split_column="is_valid", holdout_fraction=0)) == {"train": 20, "validation": 10}
    assert splits_of(read(tmp_path, split_column="fold", holdout_fraction=0)) == {"train": 24, "validation": 6}


def test_a_column_of_persons_is_proposed_and_not_taken(tmp_path):
    names = fill(tmp_path, [f"{k}.png" for k in range(20)])
    tab(
        tmp_path / "labels.csv", [("file", "label", "speaker"), *((n, k % 2, f"p{k % 7}") for k, n in enumerate(names))]
    )
    found = read(tmp_path)
    assert not found.grouped
    assert "not used: speaker (to use it: --group-column speaker)" in found.remarks[0]


def test_more_than_one_label_file_is_asked_for(tmp_path):
    names = fill(tmp_path, [f"{k}.png" for k in range(20)])
    for name in ("one.csv", "two.csv"):
        tab(tmp_path / name, [("file", "label"), *((n, k % 2) for k, n in enumerate(names))])
    with pytest.raises(DataError, match=r"more than one label file: 'one.csv', 'two.csv'; give the one"):
        read(tmp_path)
