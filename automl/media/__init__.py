"""Reading files of images, videos and sounds, with Pillow and PyAV alone; no ffmpeg has to be installed."""
