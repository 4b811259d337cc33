"""Where the winner looked in the images that it mistakes: heat maps for the report, where its weights are kept."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from automl.backbones.input import evaluation_size, read_preprocessing
from automl.errors import DataError, RecipeError, StudyError, WeightsError
from automl.evaluation.details import Mistake
from automl.media.decoding import decode_files
from automl.media.images import read_rgb
from automl.pages.pictures import encode_picture
from automl.reports.predictions import WinnerPredictions
from automl.reports.study_summary import StudySummary
from automl.study.replicate import Replicate

_SIDE = 160  # pixels of a picture


def draw_mistake_maps(summary: StudySummary, winner: WinnerPredictions, mistakes: Sequence[Mistake]) -> dict[str, str]:
    """Draws Grad-CAM maps of mistaken images, for the class that each was taken for.

    Only a confirmed recipe has weights: those of its middle seed are asked, on the CPU.

    Returns:
        By the sample's path, a JPEG as a data URI; nothing where there are no weights, no images, or no maps.
    """
    if summary.confirmation is None or winner.seed is None or summary.setup.dataset.media != "image" or not mistakes:
        return {}
    candidate, classes = summary.confirmation.best, summary.setup.dataset.classes
    recipe = candidate.recipe.model_copy(update={"seed": winner.seed})
    one = Replicate(candidate.trial, recipe, summary.folder.replicate_folder(candidate.trial, winner.seed))
    if not one.weights.is_file():
        return {}
    import torch

    from automl.data.transforms import eval_transform
    from automl.inspection.heat_maps import draw_heat_map, make_heat_maps
    from automl.training.evaluation import Normalize

    try:
        model = one.load_network(len(classes))
        preprocessing = read_preprocessing(model)
        size = evaluation_size(recipe, preprocessing, summary.setup.space.image_sizes()[-1])
        cut = eval_transform(recipe.augmentation, size, preprocessing.interpolation)
        read = dict(zip(mistakes, decode_files(read_rgb, [Path(each.path) for each in mistakes], 16), strict=True))
        images = {each: cut(np.asarray(image)) for each, image in read.items() if not isinstance(image, DataError)}
        if not images:
            return {}
        normalise = Normalize(preprocessing, recipe.numerics, torch.device("cpu"))
        targets = [classes.index(each.predicted) for each in images]
        maps = make_heat_maps(model, normalise(torch.stack(list(images.values()))), targets)
    except (RecipeError, WeightsError, StudyError):
        return {}
    drawn = {}
    for (mistake, image), heat in zip(images.items(), maps, strict=True):
        picture = draw_heat_map(Image.fromarray(image.permute(1, 2, 0).numpy()), heat)
        picture.thumbnail((_SIDE, _SIDE))
        drawn[mistake.path] = encode_picture(picture, quality=80)
    return drawn
