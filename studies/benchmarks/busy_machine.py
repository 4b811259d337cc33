"""How fast `automl.training.fit` trains on a CPU while other programs keep its cores busy.

    python studies/benchmarks/busy_machine.py [--backbone resnet18] [--variants plain automl threads=1 …]

Each variant trains in a process of its own: `plain` with the defaults of PyTorch's OpenMP, as before 2026-11-28;
`automl` as a study's only worker, which has some seconds to find its number of threads; `active`, `passive`, `spin=N`
and `threads=N` set OMP_WAIT_POLICY, GOMP_SPINCOUNT and OMP_NUM_THREADS; `+` joins several. The processes take turns
beside 0, then 2, then 4 busy processes, in an order that turns from round to round; without a turn, one sleeps. A ratio
is the median over rounds of two turns that stand close to each other in time.

A busy process is an endless loop in Python, in a session of its own. Linux shares the cores out by session first
(`autogroup`): started so, each counts as much as another user's program, and as much as all threads of a training.

Turns beside which other programs took more than a tenth of the cores do not count. Linux alone says who took how much.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Turn", "compare", "main", "read_variant"]

_WARMUP_STEPS = 5
_MOST_OTHERS = 0.1
_NAMES = {"spin": "GOMP_SPINCOUNT", "threads": "OMP_NUM_THREADS"}
_REMOVED = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")
_REMOVED += ("AUTOML_WORKERS", "AUTOML_CHOSEN")
_SETTLE_SECONDS = 10


@dataclass(frozen=True)
class Turn:
    """What a training did in its turn."""

    images_per_second: float
    others: float = 0.0
    """The share of the machine's time that programs took that are none of this benchmark's."""


def read_variant(text: str) -> dict[str, str]:
    """Reads the environment that a variant adds."""
    added: dict[str, str] = {}
    for part in text.split("+"):
        name, _, value = part.partition("=")
        if part == "automl":
            from automl.processes import worker_environment

            added |= worker_environment(1)
        elif part in ("passive", "active"):
            added["OMP_WAIT_POLICY"] = part
        elif name in _NAMES and value.isdigit():
            added[_NAMES[name]] = value
        elif part != "plain":
            raise ValueError(f"no variant {part!r}; there is: plain, automl, passive, active, spin=N, threads=N")
    return added


# --- one training -------------------------------------------------------------------------------------------------


def _train(args: argparse.Namespace) -> None:
    """Trains without end: for each number of seconds on the standard input, prints the images of a second."""
    import torch

    from automl.data.cache import build_cache
    from automl.data.dataset import open_dataset
    from automl.data.loader import ImageData
    from automl.devices import keep_freed_memory
    from automl.recipe import Recipe
    from automl.spec import DataSpec
    from automl.training.fit import fit

    if "AUTOML_WORKERS" not in os.environ:  # then `fit` leaves the number of threads as it is
        os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))
    keep_freed_memory()  # as a search's worker does
    dataset = open_dataset(DataSpec(), 0)
    data = ImageData(dataset, build_cache(dataset, 256))
    numerics = {"precision": args.precision, "memory_format": args.memory_format}
    recipe = Recipe.from_mapping(
        {"backbone": args.backbone, "pretrained": False, "image_size": args.image_size, "batch_size": args.batch_size}
        | {"epochs": 1000, "learning_rate": 1e-5, "numerics": numerics}
    )
    seconds, began, counted = 0.0, time.perf_counter(), 0

    def on_step(done: int, _total: int) -> None:
        """Ends a turn when its seconds are over, and waits for the next one."""
        nonlocal seconds, began, counted
        counted += 1
        passed = time.perf_counter() - began
        if done == _WARMUP_STEPS or (done > _WARMUP_STEPS and passed >= seconds):
            print(counted * data.batch_size(recipe) / passed, flush=True)
            seconds = float(sys.stdin.readline())
            began, counted = time.perf_counter(), 0

    fit(recipe, data, evaluate=None, on_step=on_step)


class _Training:
    """A process that trains when it has its turn."""

    def __init__(self, variant: str, arguments: Sequence[str], stack: ExitStack) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, *arguments, "--train"],
            env=os.environ | read_variant(variant),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            start_new_session=True,  # as a worker
        )
        stack.callback(_end_process, self._process)
        self._read_speed()  # it is warm
        self._settle_seconds = _SETTLE_SECONDS if "automl" in variant else 0

    def take_turn(self, seconds: float, busy: Sequence[int]) -> Turn:
        """Trains for some seconds beside busy processes of these ids, once it has settled beside them."""
        ours = (self._process.pid, *busy)
        if self._settle_seconds:
            self._train_for(self._settle_seconds)
        before, began = _others_seconds(ours), time.perf_counter()
        speed = self._train_for(seconds)
        took = (time.perf_counter() - began) * (os.cpu_count() or 1)
        return Turn(speed, (_others_seconds(ours) - before) / took)

    def _train_for(self, seconds: float) -> float:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seconds}\n")
        return self._read_speed()

    def _read_speed(self) -> float:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a training ended; its error stands above")
        return float(line)


@contextmanager
def _keep_busy(processes: int) -> Iterator[list[int]]:
    """Keeps cores busy with some processes, each in a session of its own; yields their ids."""
    with ExitStack() as stack:
        ids = []
        for _ in range(processes):
            process = subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True)
            stack.callback(_end_process, process)
            ids.append(process.pid)
        yield ids


def _end_process(process: "subprocess.Popen[str] | subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()


def _others_seconds(ours: Sequence[int]) -> float:
    """Returns the seconds of CPU time that all but some processes have taken since the machine was started."""
    user, nice, system, _idle, _wait, *interrupts = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    )
    ticks = user + nice + system + sum(interrupts)
    for process in ours:
        after_name = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
        ticks -= int(after_name[11]) + int(after_name[12])  # user and system time, `man proc_pid_stat`
    return ticks / os.sysconf("SC_CLK_TCK")


# --- comparing ----------------------------------------------------------------------------------------------------


def compare(rounds: Sequence[dict[tuple[int, str], Turn]]) -> Iterator[str]:
    """Yields a line for each load and variant: images a second, and the ratio to the first variant.

    Args:
        rounds: For each round, the turns by (busy processes, variant).
    """
    first = next(iter(rounds[0]))[1]
    for load, variant in rounds[0]:
        pairs = [(found[load, variant], found[load, first]) for found in rounds]
        quiet = [pair for pair in pairs if max(turn.others for turn in pair) <= _MOST_OTHERS]
        counted = quiet or pairs
        speed = statistics.median(turn.images_per_second for turn, _ in counted)
        ratios = sorted(turn.images_per_second / base.images_per_second for turn, base in counted)
        yield (
            f"{load} busy  {variant:20} {speed:7.1f} images/s  {statistics.median(ratios):5.2f} x {first}"
            f"  ({ratios[0]:.2f} … {ratios[-1]:.2f} in {len(quiet)} quiet of {len(pairs)} rounds)"
        )


def _parser() -> argparse.ArgumentParser:
    text = __doc__ or ""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="mobilenetv2_100")
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="bf16")
    parser.add_argument("--memory-format", choices=["contiguous", "channels_last"], default="channels_last")
    what = "the first is what the others are compared with (default: plain automl threads=1)"
    parser.add_argument("--variants", nargs="+", default=["plain", "automl", "threads=1"], help=what)
    parser.add_argument("--loads", type=int, nargs="+", default=[0, 2, 4], help="busy processes (default 0 2 4)")
    parser.add_argument("--minutes", type=float, default=5, help="rounds begin for so long (default 5)")
    parser.add_argument("--seconds", type=float, default=2, help="of a turn, at least (default 2)")
    parser.add_argument("--train", action="store_true", help=argparse.SUPPRESS)  # what a child process does
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Lets the variants take turns, and prints the comparison."""
    arguments = sys.argv[1:] if arguments is None else arguments
    args = _parser().parse_args(arguments)
    if args.train:
        _train(args)
        return
    for name in _REMOVED:
        os.environ.pop(name, None)
    with ExitStack() as stack:
        trainings = {variant: _Training(variant, arguments, stack) for variant in args.variants}
        print(f"{args.backbone} {args.image_size} px, batch {args.batch_size}, {args.precision}, {args.memory_format}")
        rounds: list[dict[tuple[int, str], Turn]] = []
        until = time.monotonic() + 60 * args.minutes
        while time.monotonic() < until:
            turns = {(load, variant): Turn(0) for load in args.loads for variant in args.variants}
            for load in args.loads:
                with _keep_busy(load) as busy:
                    for variant in args.variants if len(rounds) % 2 == 0 else args.variants[::-1]:
                        turns[load, variant] = trainings[variant].take_turn(args.seconds, busy)
            rounds.append(turns)
            others = max(turn.others for turn in turns.values())
            print(f"round {len(rounds)}: other programs took up to {others:.0%} of the cores", flush=True)
    print("\n".join(compare(rounds)))


if __name__ == "__main__":
    main()
