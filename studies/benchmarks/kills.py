"""What a study loses when its worker is killed again and again: nothing.

    python studies/benchmarks/kills.py [--kills 10] [--trials 20] [-- SEARCH FLAGS]

Runs `automl search` (on the demo, unless other flags say more), sends SIGKILL to its worker at random moments while a
trial trains, and then counts: every trial must be there once and ended, and those that were hit must have gone on
from a checkpoint.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def worker_pid(supervisor: int) -> int | None:
    """The supervisor's child that is a worker."""
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text(encoding="utf-8").split()
    for child in children:
        command = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
        if b"worker" in command:
            return int(child)
    return None


def kill_workers(process: "subprocess.Popen[bytes]", folder: Path, kills: int) -> int:
    """Kills the worker `kills` times, each time while it trains; returns how often it was hit."""
    hit = 0
    for _ in range(kills):
        began = time.time()
        # A kill before a trial's first checkpoint only makes it begin again: that there is one shows what is lost.
        while process.poll() is None and not any(_after(path, began) for path in folder.glob("trials/*/checkpoint.pt")):
            time.sleep(0.05)
        time.sleep(random.uniform(0, 1))
        if process.poll() is not None:
            break
        pid = worker_pid(process.pid)
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            hit += 1
    return hit


def _after(path: Path, moment: float) -> bool:
    """Whether a file was written after a moment; a trial that ends takes its checkpoint along."""
    try:
        return path.stat().st_mtime > moment
    except FileNotFoundError:
        return False


def main() -> None:
    """Runs, kills, counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("flags", nargs="*", help="flags of automl search, after --")
    given = parser.parse_args()
    random.seed(0)
    with tempfile.TemporaryDirectory() as runs:
        command = [sys.executable, "-m", "automl", "search", "--runs", runs, "--name", "kills"]
        command += ["--trials", str(given.trials), "--confirm", "0", *given.flags]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        hit = kill_workers(process, Path(runs) / "kills", given.kills)
        code = process.wait()
        report(Path(runs) / "kills", hit, code)


def report(folder: Path, hit: int, code: int) -> None:
    """Counts what is in the storage."""
    from automl.study.folder import StudyFolder
    from automl.study.storage import open_study

    trials = open_study(StudyFolder(folder)).get_trials(deepcopy=False)
    begun = [trial for trial in trials if trial.state.name != "WAITING"]
    states = {state: sum(t.state.name == state for t in begun) for state in sorted({t.state.name for t in begun})}
    numbers = sorted(trial.number for trial in begun)
    taken_up = [trial.user_attrs.get("taken_up", 0) for trial in begun]
    resumed = [f"{t.number}: {t.user_attrs['resumed_at']}" for t in begun if t.user_attrs.get("resumed_at")]
    print(f"\nexit code {code}; worker killed {hit} times")
    print(f"trials {len(begun)}: {states}; numbered once each: {numbers == list(range(len(begun)))}")
    print(f"taken up again: {sum(taken_up)} times, {sum(count > 0 for count in taken_up)} trials")
    print("went on at epoch (trial: epochs):", "; ".join(resumed) or "none")


if __name__ == "__main__":
    main()
