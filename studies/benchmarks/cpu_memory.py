"""What keeping freed memory is worth for training on a CPU.

    python studies/benchmarks/cpu_memory.py [BACKBONE]

Trains in two fresh processes in turn, with and without `automl.freed_memory`, and prints the ratio of the
median step times.
"""

import json
import statistics
import subprocess
import sys

STEP = """
import json, sys, time
import timm, torch
if sys.argv[1] == "keep":
    from automl.devices import keep_freed_memory
    assert keep_freed_memory(), "this C library has no mallopt"
model = timm.create_model(sys.argv[2]).train().to(memory_format=torch.channels_last)
images = torch.randn(32, 3, 192, 192).contiguous(memory_format=torch.channels_last)
seconds = []
for _ in range(12):
    began = time.perf_counter()
    model(images).sum().backward()
    seconds.append(time.perf_counter() - began)
print(json.dumps(seconds[4:]))
"""


def main() -> None:
    """Measures each way three times, in turn."""
    backbone = sys.argv[1] if len(sys.argv) > 1 else "mobilenetv2_100"
    seconds: dict[str, list[float]] = {"keep": [], "default": []}
    for _ in range(3):
        for way, found in seconds.items():
            output = subprocess.check_output([sys.executable, "-c", STEP, way, backbone], text=True)
            found += json.loads(output.splitlines()[-1])
    medians = {way: statistics.median(found) for way, found in seconds.items()}
    for way, median in medians.items():
        print(f"{way:8} {32 / median:6.1f} images/s")
    print(f"ratio    {medians['default'] / medians['keep']:6.2f}")


if __name__ == "__main__":
    main()
