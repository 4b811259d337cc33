import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from automl.errors import AutomlError, DataError
from automl.media import decoding
from automl.media.decoding import decode_files, decode_one
from tests.fixtures.damaged import behave

ROOT = Path(__file__).parents[2]


@pytest.fixture
def hurry(monkeypatch):
    """One file may take a second and a half."""
    monkeypatch.setattr(decoding, "_SECONDS", 1.5)
    monkeypatch.setattr(decoding, "_BATCH_SECONDS", 1.0)


@pytest.fixture
def _fresh():
    """No decoder knows anything yet."""
    decoding._end_all()
    decoding._idle.clear()


def decode_packet(items, ahead=64):
    return list(decode_files(behave, items, ahead))


def test_results_are_in_the_order_of_the_items():
    items = [f"echo_{k}" for k in range(500)]
    items[3:3] = ["sleep_200"]
    assert decode_packet(items) == [item.partition("_")[2] for item in items]
    assert decode_packet([]) == []


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ("exit", "its decoder ended (exit code 9)"),
        ("leave", "its decoder ended (exit code 3)"),
        ("segfault", "its decoder ended (signal 11: SIGSEGV)"),
        ("hang", "not decoded within 1.5 s"),
        ("spin", "not decoded within 1.5 s"),
        ("fill", "needs more than 6GB of memory to decode"),
        ("fills", "needs more than 6GB of memory to decode"),
        ("raise", "ZeroDivisionError: who divides?"),
        ("refuse", "cannot read refuse: not nice"),
    ],
)
def test_what_a_file_does_is_one_line_and_the_others_are_decoded(hurry, monkeypatch, item, reason):
    monkeypatch.setattr(decoding, "_limit_bytes", lambda: 6_000_000_000)
    others = [f"echo_{k}" for k in range(60)]
    found = decode_packet([*others[:40], item, *others[40:]])
    assert str(found.pop(40)) == reason
    assert found == [str(k) for k in range(60)]


def test_the_decoders_of_all_workers_share_half_of_the_memory(monkeypatch):
    monkeypatch.setattr(decoding.os, "sysconf", {"SC_PHYS_PAGES": 1 << 26, "SC_PAGE_SIZE": 4096}.__getitem__)
    monkeypatch.setattr(decoding, "usable_cores", lambda: 16)
    monkeypatch.setattr(decoding, "cpu_threads", lambda: 8)
    assert decoding._limit_bytes() == 8 << 30  # 128 GiB for 16 decoders: eight of each of two workers


def test_many_files_that_end_their_decoders_cost_each_only_itself():
    items = [f"{'echo' if k % 3 else 'exit'}_{k}" for k in range(9)]
    found = decode_packet(items)
    assert [isinstance(one, DataError) for one in found] == [not k % 3 for k in range(9)]


@pytest.mark.usefixtures("_fresh")
def test_a_file_is_not_blamed_for_what_those_before_it_did():
    assert decode_packet(["stuck_1", "stuck_2", "stuck_3"], ahead=1) == ["1", "2", "3"]


@pytest.mark.parametrize(("item", "error"), [("quota", OSError), ("mistake", AutomlError)])
def test_what_concerns_no_file_is_raised(item, error):
    with pytest.raises(error, match=r"quota|a mistake of the user") as found:
        decode_packet(["echo_1", item, "echo_2"])
    assert not isinstance(found.value, DataError)
    assert decode_packet(["echo_1"]) == ["1"]


def test_what_libraries_print_is_seen_nowhere(capfd):
    assert decode_packet(["print_1", "print_2"]) == ["1", "2"]
    assert capfd.readouterr() == ("", "")


def test_decoders_live_on_and_import_little():
    before = set(decode_packet(["who"] * 3))
    assert set(decode_packet(["who"] * 3)) & before
    assert not {"torch", "pandas", "pytest"} & set(decode_one(behave, "modules"))


def test_decoders_that_had_nothing_to_do_and_ended_are_missed_by_nobody():
    decode_packet(["who"] * 4)
    for decoder in decoding._idle:
        decoder.process.terminate()
        decoder.process.wait()
    gone = {decoder.process.pid for decoder in decoding._idle}
    found = set(decode_packet(["who"] * 4))
    assert all(isinstance(one, int) for one in found)
    assert not found & gone


def test_of_one_file_the_error_names_it(tmp_path):
    with pytest.raises(DataError, match=r"^cannot read exit: its decoder ended \(exit code 9\)$"):
        decode_one(behave, "exit")
    with pytest.raises(DataError, match=r"^cannot read refuse: not nice$"):
        decode_one(behave, "refuse")
    assert len(decode_one(behave, "large_3000000")) == 3_000_000


def test_relative_paths_begin_where_the_caller_is(tmp_path, monkeypatch):
    for folder in (tmp_path, ROOT):
        monkeypatch.chdir(folder)
        assert decode_one(behave, "where") == str(folder)


def test_no_more_is_begun_than_was_asked_for():
    taken = []
    found = decode_files(behave, (taken.append(k) or f"echo_{k}" for k in range(10_000)), ahead=20)
    for _ in range(30):
        next(found)
    assert len(taken) <= 30 + 20 + 10
    found.close()


def test_who_has_enough_waits_for_nothing():
    began = time.monotonic()
    found = decode_files(behave, ["echo_1", *["hang"] * 20], ahead=8)
    assert next(found) == "1"
    found.close()
    assert time.monotonic() - began < 30
    assert decode_packet(["echo_2"]) == ["2"]


def test_several_threads_may_decode_at_once():
    found = {}
    threads = [
        threading.Thread(target=lambda k=k: found.update({k: decode_packet([f"echo_{k}", "exit", f"sleep_{k}"])}))
        for k in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k in range(3):
        assert (found[k][0], found[k][2]) == (str(k), str(k))
        assert "exit code 9" in str(found[k][1])


def test_a_forked_process_has_decoders_of_its_own():
    decode_packet(["who"] * 4)
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.write(writer, " ".join(str(one) for one in decode_packet(["who"] * 2)).encode())
        finally:
            decoding._end_all()
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        theirs = {int(one) for one in answer.read().split()}
    os.waitpid(pid, 0)
    assert theirs
    assert not theirs & set(decode_packet(["who"] * 4))


def test_a_decoder_that_cannot_start_is_told(monkeypatch):
    monkeypatch.setattr(decoding, "_BEGIN", "raise SystemExit(5)")
    with pytest.raises(AutomlError, match=r"cannot start a process that decodes files: it ended \(exit code 5\)"):
        decoding._Decoder()
    monkeypatch.setattr(sys, "executable", str(ROOT / "no such file"))
    with pytest.raises(AutomlError, match="cannot start a process that decodes files: No such file"):
        decoding._Decoder()


SCRIPT = """
import sys
from automl.media.decoding import decode_files
from tests.fixtures.damaged import behave
# no `if __name__ == "__main__"`: this must not run again
for found in decode_files(behave, ["who", "who", *sys.argv[1:]], ahead=8):
    print(found, flush=True)
"""


def run(*items):
    return subprocess.Popen([sys.executable, "-c", SCRIPT, *items], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def ended(pids):
    """Whether processes are gone, or soon will be."""
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_decoders_end_with_a_script():
    with run("echo_1") as process:
        *pids, last = process.stdout.read().split()
    assert last == "1"
    assert process.returncode == 0
    assert ended(pids)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_decoders_end_with_a_command_that_is_ended(how):
    began = time.monotonic()
    with run("hang", "hang") as process:
        pids = [process.stdout.readline().strip() for _ in range(2)]
        assert all(Path(f"/proc/{pid}").exists() for pid in pids)
        process.send_signal(how)
        process.wait(60)
    assert ended(pids)
    assert time.monotonic() - began < 60


def test_a_decoder_that_dies_as_it_starts_is_started_again(monkeypatch):
    started = []

    class Dies(decoding._Decoder):
        def __init__(self):
            started.append(self)
            if len(started) < 3:
                raise AutomlError("cannot start")
            super().__init__()

    monkeypatch.setattr(decoding, "_Decoder", Dies)
    monkeypatch.setattr(decoding, "_PAUSE_SECONDS", 0)
    decoding._take_decoder(fresh=True).end()
    assert len(started) == 3


def test_closed_standard_streams_leave_their_numbers_alone():
    script = 'python=$1; shift; $python -c "$@" 3>&1 <&- >&- 2>&-'
    write = SCRIPT.replace("print(found, flush=True)", "import os; os.write(3, f'{found}\\n'.encode())")
    line = ["sh", "-c", script, "sh", sys.executable, write, "echo_7"]
    done = subprocess.run(line, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "7"
