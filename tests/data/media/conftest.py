import pytest

from tests.data.media.clips import tone, write_video

VFR = (0, 1, 2, 5, 6, 7, 8, 20, 21, 22, 23, 24, 25, 26, 40, 41, 42, 43, 44, 45)

KINDS = {
    "h264.mp4": {"gop_size": 5},
    "b_frames.mp4": {"gop_size": 6, "max_b_frames": 2},
    "open_gop.mp4": {"gop_size": 5, "max_b_frames": 2, "codec": "mpeg4"},
    "one_gop.mp4": {"gop_size": 250},
    "fragments.mp4": {"gop_size": 5, "options": {"movflags": "frag_keyframe+empty_moov"}},
    "b_frames.mov": {"gop_size": 4, "max_b_frames": 1},
    "mpeg4.avi": {"codec": "mpeg4", "gop_size": 6},
    "b_frames.avi": {"gop_size": 6, "max_b_frames": 2},
    "vp8.webm": {"codec": "libvpx", "gop_size": 5},
    "yuv444p10.mkv": {"codec": "ffv1", "pixel_format": "yuv444p10le", "gop_size": 4},
    "gray.mkv": {"codec": "ffv1", "pixel_format": "gray", "gop_size": 1},
    "no_index.ts": {"gop_size": 5, "max_b_frames": 2},
    "vfr.mp4": {"ticks": VFR, "gop_size": 6, "max_b_frames": 2},
    "vfr.mkv": {"ticks": VFR, "gop_size": 6},
    "sound.mp4": {"gop_size": 5, "sound": tone(2.0, 16_000)},
    "longer_sound.mkv": {"gop_size": 5, "sound": tone(3.0, 16_000), "sound_codec": "libopus"},
}


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """Paths by name: one video of each kind, twenty frames each."""
    folder = tmp_path_factory.mktemp("clips")
    return {name: write_video(folder / name, **options) for name, options in KINDS.items()}
