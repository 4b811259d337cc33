import io
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from automl.errors import DataError
from automl.media.image_file import EXTENSIONS, is_image
from automl.media.images import image_size, read_rgb

PICTURE = np.zeros((32, 48, 3), dtype=np.uint8)
PICTURE[:16], PICTURE[16:, :24] = (200, 30, 30), (30, 30, 200)

FORMATS = {
    "JPEG": "jpg jpeg jpe jfif jfi pjpeg pjp jps",
    "MPO": "mpo",
    "PNG": "png apng",
    "WEBP": "webp",
    "GIF": "gif",
    "TIFF": "tif tiff",
    "AVIF": "avif avifs",
    "JPEG2000": "jp2 j2k jpx jpf jpc j2c",
    "DDS": "dds",
    "QOI": "qoi",
    "BMP": "bmp",
    "PPM": "ppm pnm",
    "TGA": "tga",
    "SGI": "sgi",
    "PCX": "pcx",
    "ICO": "ico",
    "DIB": "dib",
}
# Pillow does not write these: what it reads instead is written below
READ_ONLY = "heic heif hif psd ras blp icns fits dcx xpm pgm pbm pfm cur xbm"


def saved(path, form, **options):
    """Writes the picture, and checks that it is read as it is."""
    Image.fromarray(PICTURE).save(path, form, **options)
    return path


def is_the_picture(path, tolerance=0):
    found = np.asarray(read_rgb(path)).astype(int)
    assert image_size(path) == (48, 32)
    inside = np.ones(PICTURE.shape[:2], dtype=bool)
    inside[12:20], inside[:, 20:28] = False, False  # lossy formats blur the edges
    return found.shape == PICTURE.shape and np.abs(found - PICTURE)[inside].max() <= tolerance


def test_every_ending_is_accounted_for():
    assert {f".{ending}" for endings in FORMATS.values() for ending in endings.split()} | {
        f".{ending}" for ending in READ_ONLY.split()
    } == EXTENSIONS


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_is_read_as_what_it_is_under_every_name(tmp_path, form):
    names = [*FORMATS[form].split(), *([] if form == "TGA" else ["jpg", "png", "1", "jpg!d", "php"])]
    for ending in names:
        path = saved(tmp_path / f"x.{ending}", form, sizes=[(48, 32)])  # what an icon is asked for
        assert is_the_picture(path, tolerance=30), ending


def test_the_first_of_several_pictures_counts(tmp_path):
    for name in ("x.mpo", "x.gif", "x.tif", "x.webp", "x.png"):
        others = [Image.new("RGB", (48, 32), "green")]
        path = saved(tmp_path / name, None, save_all=True, append_images=others)
        assert is_the_picture(path, tolerance=30), name


def test_gray_formats(tmp_path):
    for name in ("x.pgm", "x.pbm", "x.xbm"):
        Image.new("1", (48, 32), 1).convert("L" if name == "x.pgm" else "1").save(tmp_path / name)
        assert read_rgb(tmp_path / name).size == (48, 32)
    Image.fromarray(PICTURE[..., 0].astype(np.float32) / 255).save(tmp_path / "x.pfm")
    assert (np.asarray(read_rgb(tmp_path / "x.pfm"))[..., 0] == PICTURE[..., 0]).all()


def test_formats_that_pillow_only_reads(tmp_path):
    header = ["SIMPLE  =                    T", "BITPIX  =                    8", "NAXIS   =                    2"]
    header += ["NAXIS1  =                   48", "NAXIS2  =                   32", "END"]
    gray = PICTURE[..., 0]
    fits = "".join(card.ljust(80) for card in header).ljust(2880).encode() + gray[::-1].tobytes().ljust(2880, b"\0")
    sun = struct.pack(">8I", 0x59A66A95, 48, 32, 8, gray.size, 1, 0, 0) + gray.tobytes()
    psd = struct.pack(">4sH6xHIIHHIIIH", b"8BPS", 1, 1, 32, 48, 8, 1, 0, 0, 0, 0) + gray.tobytes()
    xpm = '/* XPM */\nstatic char *x[] = {\n"48 32 2 1",\n"a c #c80000",\n"b c #000000",\n'
    xpm += "".join(f'"{"".join("a" if pixel == 200 else "b" for pixel in row)}",\n' for row in gray) + "};\n"
    for name, data in {"x.fits": fits, "x.ras": sun, "x.psd": psd, "x.xpm": xpm.encode()}.items():
        (tmp_path / name).write_bytes(data)
        assert np.asarray(read_rgb(tmp_path / name))[..., 0].tolist()[:16] == gray.tolist()[:16], name


@pytest.mark.parametrize(
    "data",
    [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
        b"%PDF-1.4\n%%EOF",
        b"\xd7\xcd\xc6\x9a\x00\x00" + bytes(60),
        b"\x89HDF\r\n\x1a\n" + bytes(60),
        b"GRIB\0\0\0\1" + bytes(60),
        b"\x00\x00\x01\xb3" + bytes(60),
        b"\x1c\x02\x00\x00\x02" + bytes(60),
    ],
)
def test_only_decoders_of_pictures_see_a_file(tmp_path, data):
    (tmp_path / "x.jpg").write_bytes(data)
    assert not is_image(data)
    for read in (read_rgb, image_size):
        with pytest.raises(DataError, match=r"x\.jpg: not an image"):
            read(tmp_path / "x.jpg")


@pytest.mark.parametrize("brand", [b"heic", b"mif1", b"hevc"])
def test_heic_says_what_to_install(tmp_path, brand):
    data = struct.pack(">I4s4sI4s4s", 24, b"ftyp", brand, 0, b"mif1", b"heic") + bytes(40)
    (tmp_path / "x.heic").write_bytes(data)
    assert is_image(data)
    with pytest.raises(DataError, match=r"x\.heic: HEIC: pip install pillow-heif$"):
        read_rgb(tmp_path / "x.heic")


def test_what_cannot_be_read_says_why(tmp_path):
    jpeg = bytearray(saved(tmp_path / "x.jpg", "JPEG").read_bytes())
    jpeg[jpeg.index(b"\xff\xc0") + 4] = 12
    (tmp_path / "x.jpg").write_bytes(jpeg)
    (tmp_path / "empty.jpg").touch()
    for name, why in {"x.jpg": "12-bit layers", "empty.jpg": "the file is empty", "no.jpg": "no such file"}.items():
        with pytest.raises(DataError, match=why):
            read_rgb(tmp_path / name)


# --- what is no pixel loses no pixel ----------------------------------------------------------------------------


def text(add, *args):
    info = PngImagePlugin.PngInfo()
    getattr(info, add)("workflow", *args, zip=True)
    return info


def many_texts():
    info = PngImagePlugin.PngInfo()
    for number in range(70):
        info.add_text(str(number), "0" * 1_000_000, zip=True)
    return info


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def test_png_with_much_text_or_a_large_profile(tmp_path):
    for info in (text("add_text", "0," * 700_000), text("add_itxt", "0," * 700_000), many_texts()):
        assert is_the_picture(saved(tmp_path / "x.png", "PNG", pnginfo=info))
    assert is_the_picture(saved(tmp_path / "x.png", "PNG", icc_profile=os.urandom(1_500_000)))


@pytest.mark.parametrize(
    "extra",
    [
        chunk(b"iCCP", b"x\0\1abc"),
        chunk(b"iCCP", b"x"),
        chunk(b"tEXt", b"a\0b")[:-1] + b"?",
        chunk(b"zTXt", b"k\0\7abc"),
        chunk(b"eXIf", os.urandom(100_000)),
        chunk(b"eXIf", b"abc")[:-1] + b"?",
        chunk(b"gAMA", b""),
        chunk(b"pHYs", b"\0"),
        chunk(b"acTL", b""),
        chunk(b"fcTL", b""),
    ],
)
@pytest.mark.parametrize("place", [33, -12], ids=["before", "after"])
@pytest.mark.filterwarnings("ignore:Invalid APNG")
def test_png_with_broken_chunks(tmp_path, extra, place):
    data = saved(tmp_path / "x.png", "PNG").read_bytes()
    (tmp_path / "x.png").write_bytes(data[:place] + extra + data[place:])
    assert is_the_picture(tmp_path / "x.png")


def test_png_cut_off_in_the_text_behind_its_pixels(tmp_path):
    data = saved(tmp_path / "x.png", "PNG").read_bytes()
    (tmp_path / "x.png").write_bytes(data[:-12] + chunk(b"tEXt", b"k\0" + bytes(1000))[:100])
    assert is_the_picture(tmp_path / "x.png")


def test_png_keeps_transparency_and_orientation_without_its_text(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.new("RGB", (8, 4), (0, 0, 255))
    image.save(tmp_path / "x.png", transparency=(0, 0, 255), exif=exif, pnginfo=text("add_text", "0" * 2_000_000))
    assert np.asarray(read_rgb(tmp_path / "x.png")).min() == 255
    assert read_rgb(tmp_path / "x.png").size == image_size(tmp_path / "x.png") == (4, 8)


def segment(marker, data):
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


ENTRIES = struct.pack(">HHI4sHHIIHHII", 0xB000, 7, 4, b"0100", 0xB001, 4, 1, 2, 0xB002, 7, 32, 50)


@pytest.mark.parametrize(
    "extra",
    [
        segment(0xE0, b"JFIF\0"),
        segment(0xEE, b"Adobe"),
        segment(0xE2, b"ICC_PROFILE\0"),
        segment(0xED, b"Photoshop 3.0\0008BIM\4\4"),
        segment(0xE2, b"MPF\0" + os.urandom(60_000)),
        segment(0xE2, b"MPF\0MM\0*\0\0\0\x08\0\3" + ENTRIES + bytes(4)),
        segment(0xE1, b"Exif\0\0" + os.urandom(60_000)),
        segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08" + b"\xff" * 60_000) * 50,
        segment(0xE5, bytes(65_000)) * 300,
        segment(0xFE, bytes(65_000)) * 300,
    ],
    ids=["JFIF", "Adobe", "ICC", "Photoshop", "MPF", "short MPF", "Exif", "3 MB Exif", "20 MB APP5", "20 MB comment"],
)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_jpeg_with_broken_or_huge_segments(tmp_path, extra):
    data = saved(tmp_path / "x.jpg", "JPEG").read_bytes()
    (tmp_path / "x.jpg").write_bytes(data[:2] + extra + data[2:])
    assert is_the_picture(tmp_path / "x.jpg", tolerance=30)


def test_a_cmyk_jpeg_keeps_its_colours_without_its_tags(tmp_path):
    Image.fromarray(PICTURE).convert("CMYK").save(tmp_path / "x.jpg")
    whole = np.asarray(read_rgb(tmp_path / "x.jpg"))
    data = (tmp_path / "x.jpg").read_bytes()
    (tmp_path / "x.jpg").write_bytes(data[:2] + segment(0xE2, b"ICC_PROFILE\0") + data[2:])
    assert (np.asarray(read_rgb(tmp_path / "x.jpg")) == whole).all()


@pytest.mark.parametrize("form", ["JPEG", "WEBP", "TIFF", "AVIF"])
def test_large_profiles(tmp_path, form):
    assert is_the_picture(saved(tmp_path / "x", form, icc_profile=os.urandom(1_500_000)), tolerance=30)


def test_no_warning_of_pillow_escapes(tmp_path):
    """As users have it: pytest sets its own filters for every test."""
    buffer = io.BytesIO()
    Image.fromarray(PICTURE).save(buffer, "JPEG")
    exif = segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08" + b"\xff" * 3000)
    (tmp_path / "x.jpg").write_bytes(buffer.getvalue()[:2] + exif + buffer.getvalue()[2:])
    Image.fromarray(PICTURE).save(tmp_path / "x.tif", compression="tiff_lzw")
    code = (
        "import sys\nfrom PIL import Image\nfrom automl.media.images import read_rgb\nImage.MAX_IMAGE_PIXELS = 1000\n"
        "for path in sys.argv[1:]: read_rgb(path)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, tmp_path / "x.jpg", tmp_path / "x.tif"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
