"""`automl dashboard` as a process of its own, until Ctrl-C."""

import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest


@pytest.mark.slow
def test_the_dashboard_is_on_loopback_until_ctrl_c(new_study):
    study, folder = new_study("faces")
    port = 18000 + os.getpid() % 10000
    command = [sys.executable, "-m", "automl", "dashboard", "faces", "--runs", str(folder.path.parent)]
    process = subprocess.Popen([*command, "--port", str(port)], stdout=-1, stderr=-1, text=True)
    try:
        address = f"http://127.0.0.1:{port}/dashboard/studies/{study._study_id}"
        assert process.stdout.readline() == f"study faces: {address} (Ctrl-C ends it)\n"
        with urllib.request.urlopen(address, timeout=30) as answer:
            assert "connect-src 'self'" in answer.headers["Content-Security-Policy"]
        sockets = [line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()]
        listening = [socket for socket in sockets if socket.endswith(f":{port:04X}")]
        assert set(listening) == {f"0100007F:{port:04X}"}  # 127.0.0.1 alone
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, errors) == (130, "stopped\n")
