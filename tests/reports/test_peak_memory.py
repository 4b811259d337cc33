from automl.memory.estimate import CONTEXT_BYTES, estimate_training
from automl.recipe import Recipe
from automl.reports.peak_memory import predict_peak
from automl.study.pool import MemoryNeed
from tests.fixtures.studies import entry


def test_the_table_is_near_the_trace(tmp_path, monkeypatch):
    monkeypatch.setenv("AUTOML_CACHE", str(tmp_path))
    recipe = Recipe(backbone="test_byobnet.r160_in1k", image_size=160, batch_size=64)
    looked_up = predict_peak(recipe.model_copy(update={"seed": 1}), None, 2)
    traced = estimate_training(recipe, 2)
    assert abs(looked_up - traced) < 0.2 * (traced - CONTEXT_BYTES) + 5e6


def test_more_images_need_more_and_micro_batches_less():
    recipe = Recipe(backbone="resnet50.a1_in1k", batch_size=32)
    whole = predict_peak(recipe, None, 2)
    assert predict_peak(recipe.model_copy(update={"batch_size": 64}), None, 2) > whole
    assert predict_peak(recipe.with_numerics(micro_batch_size=8), None, 2) < whole
    assert predict_peak(recipe.model_copy(update={"image_size": 448}), None, 2) > 2 * whole


def test_what_was_measured_corrects_it():
    recipe = Recipe(backbone="resnet50.a1_in1k", batch_size=32)
    need = MemoryNeed(10**9, fits_all=True, measured=True, memory_factor=1.5, context_bytes=10**9)
    plain = predict_peak(recipe, None, 2) - CONTEXT_BYTES
    assert predict_peak(recipe, entry(memory=need), 2) == 10**9 + int(1.5 * plain)


def test_nothing_is_known_of_a_network_in_no_table():
    assert predict_peak(Recipe(backbone="nonesuch"), None, 2) is None
