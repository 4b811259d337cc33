"""Samples: recognising formats, splitting, decoding once, augmenting."""

from automl.data.cache import Cache, build_cache
from automl.data.samples import SPLITS, Dataset, open_dataset

__all__ = ["SPLITS", "Cache", "Dataset", "build_cache", "open_dataset"]
