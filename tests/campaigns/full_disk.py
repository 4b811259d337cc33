"""A disk that fills up under the study's folder, and under the database: workers wait for room, and lose nothing.

    pytest tests/campaigns/full_disk.py -m campaign -n 0 -s

The disk is a small one in memory (tmpfs), which only root can mount.
"""

import os
import random
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.campaigns.campaign import Campaign
from tests.fixtures.postgres import PostgresServer, explain_missing

pytestmark = [
    pytest.mark.campaign,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk"),
]

TIMES = int(os.environ.get("AUTOML_CAMPAIGN_OUTAGES", "5"))
SEED = int(os.environ.get("AUTOML_CAMPAIGN_SEED", "0"))
WORKERS = 4


@pytest.fixture
def small_disk():
    """Mounts a disk of so many MiB; returns its folder."""
    mounted = []

    def mount(mebibytes):
        folder = Path(tempfile.mkdtemp(prefix="automl-disk-", dir="/tmp"))
        command = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m,mode=755", "tmpfs", str(folder)]
        if subprocess.run(command, capture_output=True).returncode != 0:
            folder.rmdir()
            pytest.skip("no disk can be mounted here")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        folder.rmdir()


def fill(folder):
    """Fills a disk to its last byte; returns the file that does so."""
    path = folder / "filler"
    with path.open("ab", buffering=0) as file, suppress(OSError):
        for size in (1 << 20, 1 << 12, 1):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))
    return path


def keep_full(folder, seconds):
    """Takes what others give back, for some seconds; then there is room again."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        filler = fill(folder)
        time.sleep(0.05)
    filler.unlink()


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_the_disk_of_the_study_fills_up(tmp_path, request, small_disk, database):
    """With checkpoints, logs of workers and, embedded, the database on it."""
    url = request.getfixturevalue("postgres") if database == "postgresql" else None
    disk, rng = small_disk(128), random.Random(SEED)
    (disk / "logs").mkdir()
    campaign = Campaign(tmp_path, 12 * TIMES, url, runs=disk / "runs", logs=disk / "logs")
    for _ in range(WORKERS):
        campaign.start_worker()
    try:
        for _ in range(TIMES):
            time.sleep(rng.uniform(2, 5))
            assert campaign.replace_dead(), "the study ended before the disk was full"
            keep_full(disk, rng.uniform(3, 10))
            campaign.injected += 1
        campaign.wait_for_end(600)
        print(f"\nthe disk under the study was full {TIMES} times, {WORKERS} workers, {database}")
        campaign.account()
        logs = campaign.read_logs()
        ended = {f"trial {number}: complete" for number in range(campaign.trials)}
        print(f"workers waited for room {logs.count('room on the disk again')} times")
        assert {
            line.partition(" complete")[0] + " complete" for line in logs.splitlines() if "complete" in line
        } == ended
    finally:
        campaign.kill_all()


def test_the_disk_of_the_database_fills_up(tmp_path, small_disk):
    if reason := explain_missing():
        pytest.skip(reason)
    disk, rng = small_disk(256), random.Random(SEED)
    settings = ("fsync = off", "min_wal_size = 32MB", "max_wal_size = 48MB")
    server = PostgresServer(folder=disk, settings=settings)
    campaign, restarts = None, 0
    try:
        server.start()
        campaign = Campaign(tmp_path, 12 * TIMES, server.url(server.create_database()))
        for _ in range(WORKERS):
            campaign.start_worker()
        for _ in range(TIMES):
            time.sleep(rng.uniform(2, 5))
            assert campaign.replace_dead(), "the study ended before the disk was full"
            keep_full(disk, rng.uniform(3, 10))
            if server.process.poll() is not None:  # without room for its log it ends
                server.start()
                restarts += 1
            campaign.injected += 1
        campaign.wait_for_end(600)
        print(f"\nthe disk under PostgreSQL was full {TIMES} times, {WORKERS} workers; it ended {restarts} times")
        campaign.account()
    finally:
        if campaign:
            campaign.kill_all()
        server.stop()
