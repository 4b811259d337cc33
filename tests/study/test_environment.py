import platform

import torch

from automl.study.environment import describe_environment


def test_versions_and_machine():
    described = describe_environment(["cpu"])
    assert described["torch"] == torch.__version__.partition("+")[0] or described["torch"].startswith(torch.__version__)
    assert described["Python"] == platform.python_version()
    assert described["processor"].endswith("cores")
    assert "cuda" not in described
    assert all(isinstance(value, str) for value in described.values())


def test_a_gpu_that_nvml_does_not_see_is_said():
    assert describe_environment(["cuda:97"])["cuda:97"] == "a GPU that NVML does not name"
