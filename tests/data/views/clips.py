"""Small clips for the tests of views: a photograph of a face that moves over a background, with a sound or without."""

from fractions import Fraction
from functools import cache

import av
import numpy as np
from PIL import Image

RATE = 10
SOUND_RATE = 16_000


@cache
def portrait(side=200):
    """The head of the astronaut that scikit-image ships, (side, side, 3) uint8; its face is about a third of it."""
    from skimage.data import astronaut

    return np.array(Image.fromarray(astronaut()[0:300, 80:380]).resize((side, side), Image.Resampling.BICUBIC))


def background(height=240, width=360):
    """A smooth gradient, in which nobody finds a face."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 200 // height, columns * 200 // width, 0 * rows + 90], axis=-1).astype(np.uint8)


def moving_face(count=12, step=8, turn_degrees=0.0):
    """Frames in which the portrait goes to the right by `step` pixels a frame, (240, 360, 3) each."""
    frames = []
    for number in range(count):
        frame = Image.fromarray(background())
        face = Image.fromarray(portrait())
        mask = Image.new("L", face.size, 255)
        place = (20 + step * number, 20)
        if turn_degrees:
            face, mask = face.rotate(turn_degrees, Image.Resampling.BICUBIC), mask.rotate(turn_degrees)
        frame.paste(face, place, mask)
        frames.append(np.array(frame))
    return frames


def tone(seconds, hertz=440.0, level=0.5, rate=SOUND_RATE):
    """A sine, shape (samples,) float32."""
    return (level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def write_clip(path, frames=(), sound=None, codec="libx264rgb"):
    """Writes frames of one shape, ten a second, and mono sound of 16 kHz; MKV holds both without loss."""
    with av.open(str(path), "w") as container:
        video = audio = None
        if len(frames):
            video = container.add_stream(codec, rate=RATE, options={"crf": "0", "g": "5"})
            video.height, video.width = frames[0].shape[:2]
            video.pix_fmt = "rgb24"
        if sound is not None:
            audio = container.add_stream("pcm_s16le", rate=SOUND_RATE, layout="mono")
        for number, pixels in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            picture.pts, picture.time_base = number, Fraction(1, RATE)
            container.mux(video.encode(picture))
        if video is not None:
            container.mux(video.encode())
        if audio is not None:
            wave = np.rint(np.clip(sound, -1, 1) * 32767).astype(np.int16)[None]
            samples = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
            samples.sample_rate, samples.pts, samples.time_base = SOUND_RATE, 0, Fraction(1, SOUND_RATE)
            container.mux(audio.encode(samples))
            container.mux(audio.encode())
    return path
