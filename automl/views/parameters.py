"""Views: how a media file becomes images; and how the scores of its images become the file's.

Here are the parameters; `automl.views` makes the images. `image` is the view of image files; `frame`, `face` and
`motion` look at the pictures of a video, `mel` and `audio_features` at the sound of a sound file or of a video.
"""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from automl.schema import Part


class ViewPart(Part):
    """A view's parameters.

    Attributes:
        media: What a file must hold for this view: an image, pictures that move, or sound.
        version: Raised when the same file and parameters give other pixels; part of the cache's key.
    """

    media: ClassVar[Literal["image", "video", "sound"]]
    version: ClassVar[int] = 1
    name: str


class WholeImage(ViewPart):
    """An image file is one image, itself."""

    media: ClassVar[Literal["image", "video", "sound"]] = "image"
    name: Literal["image"] = "image"


class ClipView(ViewPart):
    """A view of a video or a sound.

    Attributes:
        count: Images of a clip at most.
        normalize: Mean and standard deviation that a channel is normalised with: `pretraining`, those of the
            backbone's weights; `dataset`, those of the training images, which suits images unlike photographs.
    """

    count: Annotated[int, Field(ge=1, le=64)] = 8
    normalize: Literal["pretraining", "dataset"] = "pretraining"


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


class FaceChoices(ClipView):
    """The parameters of views that look for faces.

    Attributes:
        which: `largest`: the person whose face fills most of the pictures, followed through the clip. `all`: up to
            four people, each an image of its own.
        margin: Side of the cut-out square over the side of the detector's box, which goes from forehead to chin.
        upright: Whether faces are turned so that their eyes are level, also in clips that lie on their side or are
            upside down.
        when_none: What becomes of a frame in which no face was found. `skip`: left out, and a clip without any face
            has nothing for this view. `frame`: the middle of the whole frame is taken. `refuse`: one such frame is
            enough for a clip to have nothing.
        face_model: Path of a YuNet ONNX file; None: the one that comes with the `media` extra. The cache's key has the
            file's digest in the path's place.
    """

    media: ClassVar[Literal["image", "video", "sound"]] = "video"
    version: ClassVar[int] = 2
    which: Literal["largest", "all"] = "largest"
    margin: Annotated[float, Field(ge=1, le=3)] = 1.3
    upright: bool = True
    when_none: Literal["skip", "frame", "refuse"] = "skip"
    face_model: str | None = None


class Face(FaceChoices):
    """Faces: found, followed over the frames, turned upright, cut out with a margin.

    Attributes:
        count: Frames that are looked at, in the middle of equal parts of the clip.
    """

    name: Literal["face"] = "face"


class Motion(FaceChoices):
    """Differences between two neighbouring frames, for red, green and blue.

    Both frames are cut by the face's place in the earlier one, so that no jitter of the detector is seen as motion.

    Attributes:
        count: Pairs of frames, in the middle of equal parts of the clip.
        of: Cut out faces, or the middle of the whole frames; then the parameters of faces mean nothing.
        difference: `signed`: 128 where nothing changes, brighter where the later frame is brighter. `absolute`: 0 where
            nothing changes.
        gain: What differences are multiplied with before they are cut off at 0 and 255; they are small.
        frames_apart: From the earlier frame to the later one.
    """

    name: Literal["motion"] = "motion"
    normalize: Literal["pretraining", "dataset"] = "dataset"
    of: Literal["face", "frame"] = "face"
    difference: Literal["signed", "absolute"] = "signed"
    gain: Annotated[float, Field(ge=0.5, le=32)] = 4.0
    frames_apart: Annotated[int, Field(ge=1, le=25)] = 1


class SoundView(ClipView):
    """A view of sound: a picture of each part of a clip, time from left to right.

    A clip shorter than a part is repeated until it fills it, as Jung et al. (AASIST, ICASSP 2022) pad: an empty margin
    would tell the clip's length, not its sound. Silence gives pictures too.

    Attributes:
        count: Parts of a clip at most, evenly placed from its beginning to its end; never more than it takes to
            cover the clip.
        seconds: Of sound in one picture.
        sample_rate_hz: All sound is resampled to it first, so that recordings of different rates can be compared.
        window_seconds: Of sound that one column of the spectrogram is computed from.
        hop_seconds: From one column to the next.
    """

    media: ClassVar[Literal["image", "video", "sound"]] = "sound"
    normalize: Literal["pretraining", "dataset"] = "dataset"
    count: Annotated[int, Field(ge=1, le=64)] = 4
    seconds: Annotated[float, Field(ge=0.5, le=60)] = 4.0
    sample_rate_hz: Annotated[int, Field(ge=4000, le=48_000)] = 16_000
    window_seconds: Annotated[float, Field(ge=0.005, le=0.5)] = 0.064
    hop_seconds: Annotated[float, Field(ge=0.001, le=0.1)] = 0.016

    @model_validator(mode="after")
    def _check_hop(self) -> Self:
        if self.hop_seconds > self.window_seconds:
            raise ValueError(
                f"hop_seconds {self.hop_seconds} leaves sound out between windows of {self.window_seconds} s;"
                " at most window_seconds"
            )
        return self

    @property
    def window(self) -> int:
        """Samples of a window, an even number."""
        return 2 * round(self.window_seconds * self.sample_rate_hz / 2)

    @property
    def hop(self) -> int:
        """Samples from one window to the next."""
        return max(1, round(self.hop_seconds * self.sample_rate_hz))


class Mel(SoundView):
    """Log-mel spectrograms: low tones at the bottom, black where it is quiet, all three channels the same.

    White (255) is `reference`, black is `range_db` below it or less, and each step between is `range_db / 255` dB. The
    defaults `n_mels` and `fmax_hz` are those of the FFDV course baseline.

    Attributes:
        n_mels: Bands, of equal width on the mel scale (Slaney's, as librosa has it).
        fmin_hz: Where the lowest band begins.
        fmax_hz: Where the highest band ends; at most half of `sample_rate_hz` and at least twice `fmin_hz`.
        reference: `loudest`: the loudest point of each picture, but at least -60 dB of full amplitude, so that silence
            stays dark. How loud a clip was recorded then tells nothing. `full`: a sine wave of full amplitude.
        range_db: Decibels between black and white; 80 is what librosa keeps.
    """

    name: Literal["mel"] = "mel"
    n_mels: Annotated[int, Field(ge=16, le=512)] = 128
    fmin_hz: Annotated[float, Field(ge=0, le=4000)] = 0.0
    fmax_hz: Annotated[float, Field(ge=500, le=24_000)] = 8000.0
    reference: Literal["loudest", "full"] = "loudest"
    range_db: Annotated[float, Field(ge=40, le=120)] = 80.0

    @model_validator(mode="after")
    def _check_band(self) -> Self:
        if self.fmax_hz > self.sample_rate_hz / 2:
            raise ValueError(
                f"fmax_hz {self.fmax_hz} is above half the sample rate {self.sample_rate_hz}; lower it, or raise"
                " sample_rate_hz"
            )
        if self.fmax_hz < 2 * self.fmin_hz:
            raise ValueError(f"fmax_hz {self.fmax_hz} must be at least twice fmin_hz {self.fmin_hz}")
        return self


class AudioFeatures(SoundView):
    """Seven features of sound, one under the other in bands of equal height, all three channels the same.

    Each is scaled from a fixed range to 0..255, so that pictures of different clips can be compared:

    | feature | range |
    |---|---|
    | chroma_stft, 12 rows, C at the top | 0 to 1, the strongest of the twelve tones of a moment being 1 |
    | rms | -80 to 0 dB of full amplitude |
    | spectral_centroid, spectral_rolloff | 0 to half of `sample_rate_hz` |
    | spectral_bandwidth | 0 to a quarter of `sample_rate_hz` |
    | zero_crossing_rate | 0 to 0.5 of the samples |
    | mfcc, the first at the top | the first: -100 to 0, the others: -15 to 15 (see `data.views.features`) |

    Attributes:
        n_mfcc: Coefficients of the mel cepstrum.
    """

    name: Literal["audio_features"] = "audio_features"
    n_mfcc: Annotated[int, Field(ge=2, le=64)] = 20


View = Annotated[WholeImage | Frame | Face | Motion | Mel | AudioFeatures, Field(discriminator="name")]


# --- from the scores of images to the score of their file -------------------------------------------------------------


class Mean(Part):
    """The mean over the images."""

    name: Literal["mean"] = "mean"


class Maximum(Part):
    """The image that is most of the positive class: one forged face is enough for a forged clip."""

    name: Literal["max"] = "max"


class TrimmedMean(Part):
    """The mean without the share `trim` of the images at each end, rounded down; never of none."""

    name: Literal["trimmed_mean"] = "trimmed_mean"
    trim: Annotated[float, Field(gt=0, lt=0.5)] = 0.2


class TopShare(Part):
    """The mean of the share `share` of the images that are most of the positive class, rounded up."""

    name: Literal["top"] = "top"
    share: Annotated[float, Field(gt=0, le=1)] = 0.25


Aggregate = Annotated[Mean | Maximum | TrimmedMean | TopShare, Field(discriminator="name")]
