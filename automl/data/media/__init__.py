"""Reading video and sound files with PyAV alone; no ffmpeg has to be installed.

`probe_media` tells what is in a file, `read_frames` gives the frames at some times, `iterate_frames` all of them,
`read_sound` the sound of a sound file or of a video. Needs `pip install 'automl-timm[media]'`.
"""

from automl.data.media.opening import SOUND_ENDINGS, VIDEO_ENDINGS, require
from automl.data.media.probe import AudioStream, MediaInfo, VideoStream, probe_media
from automl.data.media.sound import NoSound, read_sound
from automl.data.media.video import Frames, iterate_frames, read_frames

__all__ = [
    "SOUND_ENDINGS",
    "VIDEO_ENDINGS",
    "AudioStream",
    "Frames",
    "MediaInfo",
    "NoSound",
    "VideoStream",
    "iterate_frames",
    "probe_media",
    "read_frames",
    "read_sound",
    "require",
]
