"""What a long command shows on a real terminal and in a log, and how it answers Ctrl-C."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest

from tests.fixtures.screen import TerminalProcess

STUDY = """
import os, signal, socket, sys, time
from pathlib import Path
from types import SimpleNamespace
import optuna
from automl.cli import progress
from automl.cli.progress import SearchProgress
from automl.reporter import catch_interrupts
from automl.study.claims import WorkerRow, open_claims
from automl.study.folder import StudyFolder
from automl.study.storage import open_storage

optuna.logging.set_verbosity(optuna.logging.ERROR)
folder = StudyFolder(Path(sys.argv[1]))
folder.make_folders()
study = optuna.create_study(direction="maximize", storage=open_storage(folder.storage_url))
claims = open_claims(study)
result = SimpleNamespace(study=study, folder=folder, metric="auc", trials_wanted=9, claims=claims)


def begin_trial():
    trial = study.ask()
    for name, value in {"backbone": "resnet10t.c3_in1k", "image_size": 64, "epochs": 8.0}.items():
        trial.set_user_attr(name, value)
    return trial


tick, stopped = 0, []


def draw_and_stop(*args, draw=progress.draw_study):
    lines = draw(*args)
    if tick > 10 and not stopped:
        os.kill(os.getpid(), signal.SIGINT)
    return lines


if sys.argv[3:] == ["stop-in-drawing"]:
    progress.draw_study = draw_and_stop
with SearchProgress("stopping; the same command begins again") as reporter:
    reporter.print_line("a line before the search")
    reporter.show_study(result, None, False)  # with what an earlier call has left
    for number in range(4):
        study.tell(begin_trial(), (0.6, 0.8, 0.7, 0.9)[number])
    running = begin_trial()
    claims.take(running._trial_id, "a", None)
    with catch_interrupts(lambda: (stopped.append(True), reporter.show_stop("stopping after this epoch"))):
        for tick in range(int(sys.argv[2])):
            state = {"trial": running.number, "epoch": min(8.0, tick / 10)}
            claims.beat(WorkerRow("a", tick, socket.gethostname(), "cpu", state))
            answered = bool(stopped)  # a signal during a drawing is answered by the next look
            reporter.show_study(result, None, bool(stopped))
            if answered and tick > 10:
                break
            time.sleep(0.25)
    reporter.show_study(result, None, bool(stopped), last=True)
print("stopped" if stopped else "done")
"""


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(STUDY)
    return [sys.executable, str(path), str(tmp_path / "study")]


@pytest.mark.slow
def test_a_live_view_on_a_terminal_that_is_resized(program):
    with TerminalProcess([*program, "400"]) as terminal:
        terminal.wait_for(lambda screen: "epoch" in screen.text)
        terminal.wait_for(lambda screen: "trial 3 complete" in screen.text)
        screen = terminal.screen
        assert "4 of 9 trials: 4 complete" in screen.text
        assert "auc 0.9000  trial 3, resnet10t.c3_in1k 64 px" in screen.text
        assert "0.6000 ▁▆▆█ 0.9000" in screen.text
        assert screen.text.startswith("a line before the search\ntrials  ━")
        terminal.draws.clear()
        terminal.wait_for(lambda _: len(terminal.draws) > 1 and terminal.draws[-1] - terminal.draws[0] > 3)
        draws = len([b for a, b in zip([0.0, *terminal.draws], terminal.draws, strict=False) if b - a > 0.1])
        assert draws / (terminal.draws[-1] - terminal.draws[0]) <= 2.5  # each second once, at its begin and end too
        for size in ((50, 20), (110, 30)):
            terminal.resize(*size)
            terminal.wait_for(lambda screen: screen.text.startswith("trials  ━") and "epoch" in screen.text)
            assert terminal.screen.text.count("trials  ━") == 1
            # What was written as the size changed is of the old width; what is drawn next fits.
            terminal.screen.wraps = 0
            terminal.draws.clear()
            terminal.wait_for(lambda _: len(terminal.draws) > 2)
            assert terminal.screen.wraps == 0
        terminal.process.send_signal(signal.SIGINT)
        # On a busy machine the program's end may be read together with its answer, and covers it.
        assert terminal.wait_for(lambda _: "stopping after this epoch" in terminal.printed) < 5
        terminal.wait_for(lambda screen: "stopped" in screen.text.split())
        assert "trials  ━" not in terminal.screen.text  # what is left is for the result


def test_a_signal_in_the_middle_of_a_drawing_is_answered_by_the_next_look(program):
    with TerminalProcess([*program, "400", "stop-in-drawing"]) as terminal:
        terminal.wait_for(lambda screen: "stopped" in screen.text.split())
        assert "stopping after this epoch" in terminal.printed


@pytest.mark.slow
def test_a_log_has_each_trial_and_the_answer_to_ctrl_c(program):
    with subprocess.Popen([*program, "400"], stdout=subprocess.PIPE, text=True) as process:
        lines = []
        for line in process.stdout:
            lines.append(line.rstrip())
            if line.startswith("trial 3 complete"):
                process.send_signal(signal.SIGINT)
        assert process.wait() == 0
    assert "stopping after this epoch" in lines
    assert [line.split(":")[0] for line in lines if " complete: " in line] == [f"trial {k} complete" for k in range(4)]
    assert any(line.startswith("4 of 9 trials · best auc 0.9000 (trial 3, resnet10t.c3_in1k)") for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_without_checkpoints_says_what_follows_and_ends(number):
    code = """
        import sys, time
        from automl.cli import main
        from automl.cli.progress import SearchProgress

        def wait(*_, **__):
            with SearchProgress("stopping: nothing is written") as reporter:
                reporter.print_line("begun")
                time.sleep(120)

        main.app = wait
        main.run(["predict", *sys.argv[1:]])
    """
    for flags, lines in ((), ["stopping: nothing is written"]), (("--json",), []):
        command = [sys.executable, "-c", textwrap.dedent(code), *flags]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)
        stream = process.stderr if flags else process.stdout
        assert stream.readline() == "begun\n"
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert err.splitlines()[-1] == "stopped"
        if flags:
            message = '"stopped; stopping: nothing is written"'
            assert out == f'{{"error": {{"message": {message}, "exit_code": 130}}}}\n'
        else:
            assert out.splitlines() == lines
