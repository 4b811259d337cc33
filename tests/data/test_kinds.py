import pytest

from automl.data.kinds import endings_for, is_media, medium_of


@pytest.mark.parametrize(
    ("name", "medium"),
    [
        ("a.JPG", "image"),
        ("deep/er/a b.mp4", "video"),
        ("x.WebM", "video"),
        ("voice.flac", "sound"),
        ("a.m4a", "sound"),
        (".hidden.mp4", None),
        ("deep/.hidden.wav", None),
        ("mp4", None),
        ("notes.txt", None),
        ("", None),
    ],
)
def test_a_name_says_the_kind(name, medium):
    assert medium_of(name) == medium
    assert is_media(name) == (medium is not None)


def test_only_the_kinds_asked_for():
    assert is_media("a.mp4", ["video"])
    assert not is_media("a.mp4", ["image", "sound"])
    assert endings_for(["sound"]).split(", ")[:2] == [".aac", ".flac"]
