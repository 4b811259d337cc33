"""What kind of media a file is: by the ending of its name, and where that says nothing, by its first bytes."""

import os
import re
import stat
from collections.abc import Collection
from typing import Literal

from automl.media.image_file import EXTENSIONS, is_image
from automl.media.opening import SOUND_ENDINGS, VIDEO_ENDINGS

Medium = Literal["image", "video", "sound"]

ENDINGS: dict[Medium, frozenset[str]] = {"image": EXTENSIONS, "video": VIDEO_ENDINGS, "sound": SOUND_ENDINGS}
"""Endings of files of each kind, in lower case."""

NOT_MEDIA = frozenset(
    """
    .txt .md .rst .rtf .log .lst .csv .tsv .tab .xls .xlsx .ods .json .jsonl .ndjson .geojson .xml .html .htm .css .yaml
    .yml .toml .ini .cfg .conf .names .sha1 .sha256 .md5 .sum .srt .vtt .ass .sub .textgrid .lab .pts .cue .m3u .m3u8
    .pls .py .pyc .ipynb .sh .bat .ps1 .js .c .cc .cpp .h .hpp .cu .java .go .rs .m .r .jl .lua .pl .rb .sql .pdf .ps
    .eps .ai .svg .doc .docx .odt .ppt .pptx .tex .bib .epub .zip .tar .gz .tgz .bz2 .xz .zst .7z .rar .lz4 .iso .npy
    .npz .mat .h5 .hdf5 .hdf .nc .parquet .feather .arrow .orc .avro .tfrecord .tfrecords .record .lmdb .mdb .db .sqlite
    .sqlite3 .pkl .pickle .joblib .pt .pth .ckpt .safetensors .onnx .pb .tflite .gguf .engine .so .dll .exe .o .whl .jar
    .lnk .url .ttf .otf .obj .ply .stl .las .laz .bvh .fbx .glb .gltf .dng .cr2 .cr3 .nef .arw .orf .rw2 .raf .pef .srw
    """.split()  # noqa: SIM905 - 130 lines otherwise
)
"""Endings of files that are no media, or not decoded (raw photographs are TIFF files of which Pillow would read the
preview), in lower case: they are not opened to see what they are."""

_USUAL: dict[Medium, str] = {
    "image": ".jpg, .png, .webp, .tif",
    "video": ".mp4, .mov, .mkv, .avi, .webm",
    "sound": ".wav, .flac, .mp3, .ogg, .m4a",
}
_KINDS: dict[str, Medium] = {ending: medium for medium, endings in ENDINGS.items() for ending in endings}

# What the demuxers of `media.opening` are made for, by the first bytes: containers, then streams with a sync word.
_SOUND = re.compile(
    rb"RIFF.{4}WAVE|RF64.{4}WAVE|riff\x2e\x91\xcf\x11|fLaC|FORM.{4}AIF[FC]|caff\x00|\.snd\x00|NIST_1A|#!AMR|ID3[\x02-\x04]"
    rb"|wvpk|MAC .\x0f|TTA1\x01\x00|.{4}ftypM4[AB]|OggS.{24}(?!.{0,500}(theora|OVP80))"
    rb"|\xff[\xe2\xe3\xf2\xf3\xfa-\xfd][\x10-\xeb]|\xff[\xf0\xf1\xf8\xf9][\x40-\xbf]|\x0b\x77.{3}[\x00-\x87]",
    re.DOTALL,
)
_VIDEO = re.compile(
    rb".{4}(ftyp|moov|mdat|moof|wide|styp)|\x1a\x45\xdf\xa3|RIFF.{4}AVI |FLV\x01|\x30\x26\xb2\x75\x8e\x66\xcf\x11|OggS"
    rb"|\x00\x00\x01\xba|\x47.{187}\x47.{187}\x47|.{4}\x47.{191}\x47.{191}\x47|\x06\x0e\x2b\x34\x02\x05\x01\x01"
    rb"|YUV4MPEG2 ",
    re.DOTALL,
)
_HEAD_BYTES = 600  # three packets of an MPEG transport stream


def find_medium(name: str) -> Medium | None:
    """Returns the kind of a file by its name alone, None if its ending is of none; hidden files are none."""
    base = os.path.basename(name)  # noqa: PTH119 - ten times as fast as Path, for every file
    return None if base.startswith(".") else _KINDS.get(_find_ending(base))


def find_medium_at(path: str | os.PathLike[str]) -> Medium | None:
    """Returns the kind of a file on the disk: by its name, or by its content where the ending is missing or unknown.

    It is opened only if its ending is in neither `ENDINGS` nor `NOT_MEDIA`: `photo.jpg.1`, `photo.jpg!d`, `image.php`,
    `0001`. None if it is of no kind, or hidden, cannot be opened or is no ordinary file; nothing is raised.
    """
    base = os.path.basename(path)  # noqa: PTH119 - as above
    ending = _find_ending(base)
    if base.startswith(".") or ending in NOT_MEDIA:
        return None
    return _KINDS.get(ending) or find_medium_within(path)


def find_medium_within(path: str | os.PathLike[str]) -> Medium | None:
    """Finds the kind of a file by its first bytes alone, whatever its name; None as by `find_medium_at`."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 - a pipe would keep one waiting
            return None
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123
            head = file.read(_HEAD_BYTES)
    except (OSError, ValueError):
        return None
    if is_image(head):
        return "image"
    return "sound" if _SOUND.match(head) else "video" if _VIDEO.match(head) else None


def is_media(name: str, media: Collection[str] = tuple(ENDINGS)) -> bool:
    """Returns whether a name, not a hidden one, ends like a file of one of these kinds."""
    return find_medium(name) in media


def endings_for(media: Collection[Medium]) -> str:
    """Writes the usual endings of these kinds, of which there are many more, for a message."""
    return ", ".join([*(_USUAL[medium] for medium in media), "…"])


def _find_ending(base: str) -> str:
    """Returns the ending of a file's name, in lower case."""
    return os.path.splitext(base)[1].lower()  # noqa: PTH122 - as above
