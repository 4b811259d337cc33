"""Whether a file is shorter than it says: by the sizes in its own headers, nothing is decoded.

Known are MP4 and MOV, Matroska and WebM, WAV (RF64 and W64, too), AVI, AIFF, AU, CAF, Ogg, and MP3 with a Xing, Info or
VBRI header; FLAC says how many samples it has, which is compared where they are read. Who writes into a pipe knows no
size and leaves 0 or the largest one: nothing is said of such a file, nor of MPEG-TS or bare MP3 and AAC, which may be
cut anywhere. An Ogg file without the flag of a last page is whole if its last page is: a recording of a live stream
has none.
"""

import struct
from pathlib import Path
from typing import BinaryIO

from automl.errors import DataError

_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"moof", b"free", b"skip", b"wide", b"styp", b"sidx", b"mfra", b"uuid"})
_UNKNOWN = 0x7F00_0000  # what is written for a size that is not known is this or more (SoX, arecord, FFmpeg, mpg123)
_UNKNOWN_64 = 1 << 62
_SLACK = 64  # bytes by which writers go wrong who count a header twice
_MP3_SLACK = 1500  # more than the largest frame: writers differ in whether they count the first
_MOST_CHUNKS = 10_000  # before the samples; a file of zeros would be read in steps of eight bytes
_LARGEST_PAGE = 65_307  # bytes, of Ogg (RFC 3533, 6)
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_W64 = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"


def refuse_cut_off(path: Path) -> None:
    """Raises DataError if a file ends before its headers say, OSError if it cannot be read."""
    size = path.stat().st_size
    with path.open("rb") as file:
        declared = _find_declared_end(file, size)
    if declared > size:
        raise DataError(f"cannot read {path}: cut off: {size} bytes of at least {declared}")


def declares_length(path: Path) -> bool:
    """Returns whether an MP3 file has a header that tells the number of its frames."""
    with path.open("rb") as file:
        return _read_mp3_header(file) is not None


def _find_declared_end(file: BinaryIO, size: int) -> int:
    """Returns where a file has to end at the earliest; 0 if it does not say."""
    head = file.read(16)
    if head[:4] in (b"RIFF", b"RF64", b"BW64"):
        return (_find_wav_end if head[8:12] == b"WAVE" else _find_avi_end)(file, size)
    if head[:4] == b"FORM" and head[8:11] == b"AIF":
        return _trust_end(8 + int.from_bytes(head[4:8], "big"), _UNKNOWN, _SLACK)
    if head[:4] == b".snd":  # AU: where the samples begin, and their bytes
        length = int.from_bytes(head[8:12], "big")
        return _trust_end(length and length + int.from_bytes(head[4:8], "big"), _UNKNOWN, _SLACK)
    if head == _W64:
        return _trust_end(int.from_bytes(file.read(8), "little"), _UNKNOWN_64, _SLACK)
    if head[:4] == b"caff":
        return _find_caf_end(file, size)
    if head[:4] == _EBML:
        return _find_matroska_end(file)
    if head[:4] == b"OggS":
        return _find_ogg_end(file, size)
    if head[:3] == b"ID3" or head[:1] == b"\xff":
        return max(0, (_read_mp3_header(file) or 0) - _MP3_SLACK)
    return _find_mp4_end(file, size)


def _trust_end(end: int, unknown: int, slack: int) -> int:
    """Returns an end, less what it may be wrong by; 0 if it stands for one that is not known."""
    return 0 if end >= unknown else max(0, end - slack)


def _find_mp4_end(file: BinaryIO, size: int) -> int:
    """MP4 and MOV: the boxes of ISO/IEC 14496-12, 4.2: size, type, contents."""
    offset = 0
    while offset + 8 <= size:
        file.seek(offset)
        length, kind = struct.unpack(">I4s", file.read(8))
        if kind not in _BOXES:
            break
        if length == 1:  # the size follows, as it does not fit
            length = int.from_bytes(file.read(8), "big")
        if length < 8:
            break  # 0: to the end of the file
        offset += length
    return offset


def _find_wav_end(file: BinaryIO, size: int) -> int:
    """WAV: the end of its data chunk; RF64 has sizes of 64 bits in a chunk of their own (EBU Tech 3306)."""
    offset, long = 12, 0
    for _ in range(_MOST_CHUNKS):
        if offset + 8 > size:
            break
        file.seek(offset)
        kind, length = struct.unpack("<4sI", file.read(8))
        if kind == b"ds64":
            long = int.from_bytes(file.read(16)[8:], "little")
        if kind == b"data":
            if length == 0xFFFF_FFFF and 0 < long < _UNKNOWN_64:
                return offset + 8 + long - _SLACK
            return _trust_end(offset + 8 + length, _UNKNOWN, _SLACK) if length else 0
        offset += 8 + length + length % 2
    return 0


def _find_avi_end(file: BinaryIO, size: int) -> int:
    """AVI: the end of the last of its RIFF chunks, of which large files have several."""
    offset = 0
    while offset + 8 <= size:
        file.seek(offset)
        kind, length = struct.unpack("<4sI", file.read(8))
        if kind != b"RIFF" or not length or length >= _UNKNOWN:
            break
        offset += 8 + length + length % 2
    return max(0, offset - _SLACK)


def _find_caf_end(file: BinaryIO, size: int) -> int:
    """CAF: the end of its chunks (type, 64 bits of size); that of the samples may be unknown, and is then the last."""
    offset = 8
    for _ in range(_MOST_CHUNKS):
        if offset + 12 > size:
            break
        file.seek(offset)
        length = int.from_bytes(file.read(12)[4:], "big")
        if length >= _UNKNOWN_64:
            break
        offset += 12 + length
    return max(0, offset - _SLACK)


def _find_matroska_end(file: BinaryIO) -> int:
    """Matroska and WebM: the end of the segment (RFC 8794, 6: sizes of which all bits are set are not known)."""
    offset = 4
    for ident in (_EBML, _SEGMENT):
        file.seek(offset - 4)
        if file.read(4) != ident:
            return 0
        first = int.from_bytes(file.read(1))
        width = 9 - first.bit_length()
        if not first:
            return 0
        length = int.from_bytes(bytes([first & ((1 << (8 - width)) - 1)]) + file.read(width - 1), "big")
        if ident == _SEGMENT and length in (0, (1 << 7 * width) - 1):
            return 0
        offset += width + length + 4
    return offset - 4


def _find_ogg_end(file: BinaryIO, size: int) -> int:
    """Ogg: the end of the last page that begins in the file (RFC 3533, 6)."""
    start = max(0, size - _LARGEST_PAGE)
    file.seek(start)
    tail = file.read()
    offset = tail.rfind(b"OggS\0")
    if offset < 0:
        return 0
    header = tail[offset : offset + 27 + 255]
    segments = header[26] if len(header) > 26 else 0
    return start + offset + 27 + segments + sum(header[27 : 27 + segments])


def _read_mp3_header(file: BinaryIO) -> int | None:
    """Returns where the frames of an MP3 file end, 0 if not told; None without a header that tells how many there are.

    Xing's and LAME's header is where the first frame's sound would be, Fraunhofer's VBRI 32 bytes after its beginning.
    """
    offset = _skip_tags(file)
    file.seek(offset)
    frame = file.read(64)
    if len(frame) < 64 or frame[0] != 0xFF or frame[1] & 0xE0 != 0xE0:
        return None
    first_kind, mono = frame[1] & 0x18 == 0x18, frame[3] >> 6 == 3  # MPEG-1 has more of side information
    after = 4 + ((17 if mono else 32) if first_kind else (9 if mono else 17))
    if frame[after : after + 4] in (b"Xing", b"Info"):
        flags, frames, length = struct.unpack(">III", frame[after + 4 : after + 16])
        if flags & 1 and frames:
            return offset + length if flags & 2 and length else 0
    if frame[36:40] == b"VBRI":
        length, frames = struct.unpack(">II", frame[46:54])
        if frames:
            return offset + length if length else 0
    return None


def _skip_tags(file: BinaryIO) -> int:
    """Returns where a file goes on after its ID3v2 tags (id3.org, ID3v2.4.0 structure, 3.1)."""
    offset = 0
    while True:
        file.seek(offset)
        head = file.read(10)
        if len(head) < 10 or head[:3] != b"ID3":
            return offset
        length = sum((byte & 0x7F) << 7 * (3 - k) for k, byte in enumerate(head[6:]))
        offset += 10 + length + (10 if head[5] & 0x10 else 0)
