"""Clocks that are stepped by an hour, forward and back, on one worker, on all, and on the database's host.

    pytest tests/campaigns/clock.py -m campaign -n 0 -s

A small library, made here by the C compiler, gives a process the clock of a file; monotonic clocks go on, as they do
where a real clock is stepped. (libfaketime 0.9.10 steps absolute sleeps on the monotonic clock, too.)
"""

import os
import random
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from tests.campaigns.campaign import Campaign
from tests.fixtures.postgres import PostgresServer, explain_missing

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static time_t read_offset(void) {
    char text[32] = "0";
    const char *path = getenv("STEPPED_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file >= 0) {
        ssize_t size = read(file, text, sizeof text - 1);
        text[size > 0 ? size : 0] = 0;
        close(file);
    }
    return atol(text);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int code = real(clock, now);
    if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) now->tv_sec += read_offset();
    return code;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec exact;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (now) *now = exact.tv_sec;
    return exact.tv_sec;
}
"""

pytestmark = [
    pytest.mark.campaign,
    pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler"),
]

STEPS = int(os.environ.get("AUTOML_CAMPAIGN_OUTAGES", "6"))
SEED = int(os.environ.get("AUTOML_CAMPAIGN_SEED", "0"))
WORKERS = 3


class Clock:
    """A clock that processes have by their environment."""

    def __init__(self, path, library):
        self._path, self._library = path, library
        self.seconds = 0
        self.step(0)

    def step(self, seconds):
        self.seconds += seconds
        new = self._path.with_suffix(".new")
        new.write_text(f"{self.seconds:+d}\n")
        new.chmod(0o644)
        new.replace(self._path)

    @property
    def environment(self):
        return {"STEPPED_CLOCK": str(self._path), "LD_PRELOAD": str(self._library)}


@pytest.fixture
def library():
    """The compiled library, where the database's user may read it."""
    folder = Path(tempfile.mkdtemp(prefix="automl-clock-", dir="/tmp"))
    folder.chmod(0o755)
    made = folder / "clock.so"
    command = ["cc", "-shared", "-fPIC", "-O1", "-x", "c", "-", "-o", str(made), "-ldl"]
    subprocess.run(command, input=SOURCE, text=True, check=True)
    yield made
    shutil.rmtree(folder)


def test_clocks_are_stepped_by_an_hour(tmp_path, library):
    if reason := explain_missing():
        pytest.skip(reason)
    rng, hour = random.Random(SEED), 3600
    server, campaign, clocks = None, None, {}
    try:
        server = PostgresServer(env={})
        clocks["database"] = Clock(server.folder / "clock", library)
        server.env |= clocks["database"].environment
        server.start()
        campaign = Campaign(tmp_path, 15 * STEPS, server.url(server.create_database()))
        for k in range(WORKERS):
            clock = clocks[f"worker {k}"] = Clock(tmp_path / f"clock-{k}", library)
            campaign.start_worker(env=clock.environment)
        deadline = time.monotonic() + 120
        while len({process for _, process, _, _ in campaign.read_notes()}) < WORKERS:
            assert time.monotonic() < deadline, "the workers do not begin"
            time.sleep(0.2)
        (now,) = server.execute("SELECT extract(epoch FROM now())")[0]
        assert abs(float(now) - time.time()) < 60
        for step in range(STEPS):
            assert campaign.replace_dead(), "the study ended before its clocks were stepped"
            sign = 1 if step % 2 == 0 else -2
            chosen = [[*clocks][step // 2 % len(clocks)]] if step < STEPS - 2 else [*clocks]
            for name in chosen:
                clocks[name].step(sign * hour)
            campaign.injected += 1
            time.sleep(rng.uniform(2, 5))
            print(f"clocks: {', '.join(f'{name} {clock.seconds / hour:+.0f} h' for name, clock in clocks.items())}")
        (now,) = server.execute("SELECT extract(epoch FROM now())")[0]
        assert abs(float(now) - time.time() - clocks["database"].seconds) < 60
        campaign.wait_for_end(600)
        print(f"\nclocks stepped by one or two hours {STEPS} times, {WORKERS} workers")
        rows = campaign.account()
        assert rows["epochs repeated"].startswith("0.0")
    finally:
        if campaign:
            campaign.kill_all()
        if server:
            server.remove()
