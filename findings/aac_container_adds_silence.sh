#!/usr/bin/env bash
# The same AAC packets begin with an eighth of a second of silence or with none: the container decides, not the codec.
#
# Every lossy codec of sound has a delay. One expects a decoder to take it off, or MP3, which is old, to be the one that
# keeps it. With FFmpeg by PyAV it is the other way round: MP3 and Opus come back sample by sample where they were, and so
# does AAC in an MP4 file, whose edit list says what to skip. AAC as a raw stream (.aac, ADTS) has no room for that: 1,024
# samples of silence come first, .128 s at 8 kHz, and the end is padded too. The length that the MP4 file states is right,
# but decoding gives .048 s more. And an MP3 that is aligned has a first timestamp of .069 s all the same: who places
# samples by timestamps shifts them.
#
# What it means: in a set of genuine and spoofed voices of which one class went through .aac, leading silence and length
# tell the classes apart, and a detector learns that (arXiv:2106.12914 reports the like of ASVspoof 2019). When sound is
# degraded for a robustness test, write AAC to .m4a, cut what is decoded to the length before, and place samples by
# counting them. automl data names such a difference; see docs/audit.md.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "av==18.1.0" "numpy>=2"
cat > "$work/look.py" <<'PYTHON'
import io

import av
import numpy as np


def come_back(codec, container, rate, bit_rate):
    """Encodes and decodes two seconds of noise: how much longer and later it is, and the first timestamp, in seconds."""
    sound = (0.1 * np.random.default_rng(0).standard_normal(2 * rate)).astype(np.float32)
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate, layout="mono")
        stream.bit_rate = bit_rate
        frame = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = rate, 0
        resampler = av.AudioResampler(format=stream.codec_context.format, layout="mono", rate=rate)
        for part in resampler.resample(frame) + resampler.resample(None):
            out.mux(stream.encode(part))
        out.mux(stream.encode(None))
    file.seek(0)
    with av.open(file) as source:
        stream = source.streams.audio[0]
        resampler, parts, first = av.AudioResampler(format="fltp", layout="mono", rate=rate), [], None
        for frame in source.decode(stream):
            first = float(frame.pts * frame.time_base) if first is None else first
            parts += [part.to_ndarray()[0] for part in resampler.resample(frame)]
        parts += [part.to_ndarray()[0] for part in resampler.resample(None)]
    back = np.concatenate(parts)
    size = 1 << int(np.ceil(np.log2(len(back) + len(sound))))
    alike = np.fft.irfft(np.fft.rfft(back, size) * np.conj(np.fft.rfft(sound, size)), size)
    lag = int(np.argmax(alike))
    return round(len(back) / rate - 2, 3), round((lag if lag < size // 2 else lag - size) / rate, 3), round(first, 3)


for codec, container, rate, bit_rate, expected in (
    ("aac", "adts", 8000, 24000, (0.176, 0.128, 0.0)),
    ("aac", "mp4", 8000, 24000, (0.048, 0.0, 0.0)),
    ("libmp3lame", "mp3", 16000, 32000, (0.0, 0.0, 0.069)),
    ("libopus", "ogg", 48000, 24000, (0.0, 0.0, 0.0)),
):
    longer, later, first = come_back(codec, container, rate, bit_rate)
    print(f"{codec} in {container} at {rate} Hz: {longer} s longer, {later} s later, first timestamp {first} s")
    assert (longer, later, first) == expected, expected
PYTHON
"$work/venv/bin/python" "$work/look.py"
# Seen with PyAV 18.1.0 (its wheel for Linux), 2026-11-28:
#   aac in adts at 8000 Hz: 0.176 s longer, 0.128 s later, first timestamp 0.0 s
#   aac in mp4 at 8000 Hz: 0.048 s longer, 0.0 s later, first timestamp 0.0 s
#   libmp3lame in mp3 at 16000 Hz: 0.0 s longer, 0.0 s later, first timestamp 0.069 s
#   libopus in ogg at 48000 Hz: 0.0 s longer, 0.0 s later, first timestamp 0.0 s
