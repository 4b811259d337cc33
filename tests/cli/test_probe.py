import pytest
import typer
from typer.testing import CliRunner

from automl.cli.probe import probe
from automl.errors import PoolError, RecipeError, SpecError
from automl.gpu import compare as comparison
from automl.gpu.probe import CannotProbe, Measurement, StepMemory
from automl.memory.envelope import Envelope
from tests.fixtures.fake_nvml import GB, FakeGpu, FakeNvml

app = typer.Typer()
app.command()(probe)


def call(*arguments):
    result = CliRunner().invoke(app, list(arguments))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(autouse=True)
def predicted(monkeypatch):
    """Each step needs 100 MB and 100 MB an image beside the context, at least two images at a time."""
    envelope = Envelope(((GB // 10, GB // 10),), tuple((n, (n + 1) * GB // 10) for n in (2, 1024)), 2)
    monkeypatch.setattr(comparison, "predict_envelope", lambda *_, **__: envelope)
    monkeypatch.setattr("automl.memory.estimate.predict_envelope", lambda *_, **__: envelope)


@pytest.fixture
def gpu(monkeypatch):
    """A GPU of 16 GB, and probes that find what they are told to."""
    monkeypatch.setattr("automl.devices.find_devices", lambda _: ("cuda:0", "cuda:1"))
    FakeNvml(FakeGpu("Tesla T4")).install(monkeypatch)
    asked = []

    def measured(micro=32, **given):
        def probe(recipe, classes, device, budget, *, timed_image_size=None):
            asked.append((recipe, classes, device, budget, timed_image_size))
            if "error" in given:
                raise given["error"]
            steps = (StepMemory(micro, 3_000_000_000, 3_500_000_000, 4_100_000_000, 0.002),) if micro else ()
            return Measurement(
                device_name="Tesla T4",
                context_bytes=500_000_000,
                budget_bytes=budget,
                shared=False,
                image_size=recipe.image_size,
                precision="fp16",
                memory_format="channels_last",
                steps=steps,
                micro_batch=micro,
                accumulation=recipe.batch_size // micro if micro else 0,
            )

        monkeypatch.setattr(comparison, "probe_backbone", probe)
        return asked

    return measured


def cells(output):
    """The table's rows, by the words of their lines."""
    return [line.split() for line in output.split("\n\n")[0].splitlines()]


def test_without_a_gpu_it_is_predicted():
    output = call("resnet18", "resnet50", "--device", "cpu", "--gpu-mem", "4.5GB", "--batch-size", "64").stdout
    head, *rows = cells(output)
    assert "measured" not in head
    assert [row[0] for row in rows] == ["resnet18", "resnet50"]
    # 64 images need 6.5 GB and the context; 16 need 1.7 GB and the context of 2.31 GB
    assert rows[0][1:] == ["224", "fp32", "contiguous", "8.81GB", "4.5GB", "16", "×", "4", "4.01GB", "493MB"]
    assert "no GPU here: predicted only, with 2.31GB for CUDA itself." in output
    assert "\x1b" not in output


def test_without_a_gpu_and_a_budget_the_batch_alone_is_predicted():
    head, row = cells(call("resnet18", "--device", "cpu", "--image-size", "96").stdout)
    assert row == ["resnet18", "96", "fp32", "contiguous", "5.61GB"]
    assert head[-3:] == ["batch", "of", "32"]


def test_a_budget_that_is_too_small_is_told():
    output = call("resnet18", "--device", "cpu", "--gpu-mem", "2.5GB").stdout
    assert "does not fit" in output
    assert cells(output)[1][-2:] == ["2.61GB", "-107MB"]
    assert "fewest images" in output


def test_a_measured_step_stands_beside_its_prediction(gpu):
    asked = gpu(micro=16)
    output = call("resnet18", "--gpu-mem", "8GB", "--classes", "7", "--optimizer", "sgd").stdout
    head, row = cells(output)
    recipe, classes, device, budget, timed = asked[0]
    assert (classes, device, budget, timed, recipe.optimizer.name) == (7, "cuda:0", 8 * GB, 224, "sgd")
    # 1.7 GB predicted and 3 GB measured, both with the measured context
    told = ["8GB", "16", "×", "2", "2.2GB", "3.5GB", "-37.1%", "4GB", "4.1GB", "4.5GB", "500"]
    assert row == ["resnet18", "224", "fp16", "channels_last", "3.8GB", *told]
    assert head[-4:] == ["reserved", "NVML", "margin", "images/s"]
    assert "predicted only" not in output


def test_a_precision_that_is_given_is_not_chosen(gpu):
    asked = gpu()
    call("resnet18", "--precision", "bf16")
    recipe, _, _, budget, timed = asked[0]
    assert (recipe.numerics.precision, timed, budget) == ("bf16", None, 16 * GB)


def test_a_gpu_on_which_nothing_can_be_measured_is_told(gpu):
    gpu(error=CannotProbe("no process can be started: Permission denied"))
    output = call("resnet18").stdout
    assert "no process can be started: Permission denied: predicted only" in output
    assert "measured" not in output


def test_a_backbone_that_breaks_ends_only_itself(gpu, monkeypatch):
    gpu()
    whole = comparison.probe_backbone

    def probe(recipe, *arguments, **given):
        if recipe.backbone == "resnet50":
            raise RecipeError("resnet50: killed")
        return whole(recipe, *arguments, **given)

    monkeypatch.setattr(comparison, "probe_backbone", probe)
    result = call("resnet18", "resnet50")
    assert "left out: resnet50: killed" in result.stderr
    assert len(cells(result.stdout)) == 2
    with pytest.raises(RecipeError, match="killed"):
        call("resnet50")


def test_names_wildcards_and_native_sizes():
    rows = cells(call("test_vit.r160_in1k", "convnext_tiny.*", "convnext_tiny.fb_in1k", "--device", "cpu").stdout)[1:]
    names = [row[0] for row in rows]
    assert names[0] == "test_vit.r160_in1k"
    assert rows[0][1] == "160"
    assert len(names) == len(set(names)) > 3
    assert all(name.startswith("convnext_tiny.") for name in names[1:])


def test_mistakes_are_told():
    with pytest.raises(RecipeError, match="no backbone 'resnet5o'; did you mean 'resnet50'"):
        call("resnet5o")
    with pytest.raises(PoolError, match="no backbone matches"):
        call("nothing_like_it*")
    with pytest.raises(RecipeError, match="adan"):
        call("resnet18", "--optimizer", "adan")
    with pytest.raises(SpecError, match="give a size like 16GB"):
        call("resnet18", "--gpu-mem", "90%", "--device", "cpu")
