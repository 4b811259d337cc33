"""The `frame` view: frames of a video, their middle squares or all of them."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from PIL import Image
from pydantic import Field

from automl.media.video import Frames, iterate_frames, read_frames
from automl.views.base import ClipView, Pixels, ViewImages, cut_square, probe_video, stack_images

_THUMBNAIL = 32  # pixels of the short side of what is compared to find scene changes
_LOOKS_PER_SECOND = 5.0


class Frame(ClipView):
    """Frames: the middle square of each, or all of it, resized.

    Attributes:
        count: Frames of a clip; a clip with fewer gives those it has.
        fit: `middle`: the middle square of a frame; what lies at its ends is not seen, 44 % of a frame of 16:9.
            `squash`: all of the frame, its two sides brought to the same length.
        placement: `even`: in the middle of equal parts of the clip. `scenes`: in the middle of scenes, the longest
            first; with fewer scenes than frames, the longest parts are halved. `scenes` decodes the whole clip.
        min_change: With `scenes`: the mean absolute difference of neighbouring thumbnails, as a share of white, that
            begins a new scene. 0.106 is 27 of 255, the default of PySceneDetect's content detector, which
            compares in HSV.
    """

    name: Literal["frame"] = "frame"
    media: ClassVar[Literal["image", "video", "sound"]] = "video"
    version: ClassVar[int] = 2
    fit: Literal["middle", "squash"] = "middle"
    placement: Literal["even", "scenes"] = "even"
    min_change: Annotated[float, Field(gt=0, le=1)] = 0.106

    def make_images(self, path: Path, size: int) -> ViewImages:
        """Reads frames and makes squares of them; see `BaseView.make_images`."""
        video = probe_video(path)
        if self.placement == "even":
            frames = read_frames(path, count=self.count, size=size)
        else:
            stride = max(1, round((video.frames_per_second or 25) / _LOOKS_PER_SECOND))
            times = find_scene_times(path, self.count, self.min_change, stride)
            frames = read_frames(path, times_seconds=times, size=size)
        frames, notes = drop_repeated(frames, self.count)
        fit = squash if self.fit == "squash" else cut_square
        return stack_images([fit(pixels, size) for pixels in frames.pixels], list(frames.times_seconds), notes)


def squash(pixels: Pixels, size: int) -> Pixels:
    """Brings both sides of a picture (height, width, 3) to `size` pixels (bicubic, antialiased): nothing is cut off."""
    return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC))


def drop_repeated(frames: Frames, count: int) -> tuple[Frames, list[str]]:
    """Leaves out repeated frames, as a clip of fewer frames than were asked for gives; with a note that says so."""
    _, first = np.unique(frames.times_seconds, return_index=True)
    if len(first) == len(frames):
        return frames, []
    notes = [f"{len(first)} frames instead of {count}: the clip has no more"]
    return Frames(frames.pixels[first], frames.times_seconds[first]), notes


def find_scene_times(path: Path, count: int, min_change: float, stride: int = 1) -> list[float]:
    """Finds the scenes of a clip; times in seconds in the middle of the `count` longest parts, ascending.

    The video is decoded from beginning to end, in constant memory; every `stride`-th frame is looked at. For
    `min_change` see `Frame`.
    """
    starts: list[float] = []
    before: Pixels | None = None
    time = 0.0
    for time, pixels in iterate_frames(path, stride, size=_THUMBNAIL):
        change = 1.0 if before is None else float(np.abs(pixels.astype(np.int16) - before).mean()) / 255
        if change >= min_change:
            starts.append(time)
        before = pixels
    parts = [(end - start, start) for start, end in zip(starts, [*starts[1:], time], strict=True)]
    while len(parts) < count and max(parts)[0] > 0:
        length, start = parts.pop(parts.index(max(parts)))
        parts += [(length / 2, start), (length / 2, start + length / 2)]
    longest = sorted(parts, reverse=True)[:count]
    return sorted(start + length / 2 for length, start in longest)
