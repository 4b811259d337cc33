"""A database that stops under load, and connections that are cut: workers wait, and go on where they were.

pytest tests/campaigns/outages.py -m campaign -n 0 -s
AUTOML_CAMPAIGN_OUTAGES=3 AUTOML_CAMPAIGN_SEED=7 pytest tests/campaigns/outages.py -m campaign -n 0 -s
"""

import os
import random
import signal
import time

import pytest

from tests.campaigns.campaign import Campaign
from tests.campaigns.proxy import Proxy

pytestmark = pytest.mark.campaign

OUTAGES = int(os.environ.get("AUTOML_CAMPAIGN_OUTAGES", "10"))
SEED = int(os.environ.get("AUTOML_CAMPAIGN_SEED", "0"))
CUT_SECONDS = 60
WORKERS = 4


def test_the_database_stops_and_starts(tmp_path, postgres, postgres_server):
    campaign, rng = Campaign(tmp_path, 12 * OUTAGES, postgres), random.Random(SEED)
    for _ in range(WORKERS):
        campaign.start_worker()
    down_seconds = 0.0
    try:
        for _ in range(OUTAGES):
            time.sleep(rng.uniform(1, 5))
            assert campaign.replace_dead(), "the study ended before its outages"
            postgres_server.stop(rng.choice([signal.SIGINT, signal.SIGQUIT]))  # in order, or as a crash
            seconds = rng.uniform(0.2, 8)
            time.sleep(seconds)
            down_seconds += seconds
            postgres_server.start()
            campaign.injected += 1
        campaign.wait_for_end(600)
    finally:
        campaign.kill_all()
    print(f"\nthe database stopped {OUTAGES} times, {down_seconds:.0f} s in all, under {WORKERS} workers")
    rows = campaign.account()
    logs = campaign.read_logs()
    print(f"lines that say so: {logs.count('does not answer')} away, {logs.count('is back after')} back")
    assert rows["epochs repeated"].startswith("0.0")
    assert logs.count("does not answer") == logs.count("is back after") >= OUTAGES


def test_connections_are_cut_for_a_minute(tmp_path, postgres, postgres_server):
    """Each worker reaches the database through the proxy, whose connections end and are refused then."""
    proxy = Proxy(("127.0.0.1", postgres_server.port))
    away = postgres.replace(f":{postgres_server.port}/", f":{proxy.port}/")
    campaign = Campaign(tmp_path, 60, postgres)
    for _ in range(WORKERS):
        campaign.start_worker(away)
    try:
        time.sleep(8)
        assert campaign.replace_dead(storage=away)
        proxy.cut()
        campaign.injected += 1
        time.sleep(CUT_SECONDS)
        proxy.mend()
        campaign.wait_for_end(300, storage=away)
    finally:
        campaign.kill_all()
        proxy.cut()
    print(f"\nconnections cut for {CUT_SECONDS} s, {WORKERS} workers")
    campaign.account()
    assert campaign.read_logs().count("is back after") >= WORKERS


def test_one_worker_is_cut_off_for_longer_than_its_claim_lasts(tmp_path, postgres, postgres_server):
    """Its trial is taken over by the other one; when it is back, it leaves that trial alone and takes others."""
    proxy = Proxy(("127.0.0.1", postgres_server.port))
    away = postgres.replace(f":{postgres_server.port}/", f":{proxy.port}/")
    campaign = Campaign(tmp_path, 80, postgres, pause=0.05)
    # Hosts of their own: no lock file of the other one says that it lives.
    one, _ = campaign.start_worker(away, env=host(tmp_path, "one")), campaign.start_worker(env=host(tmp_path, "two"))
    try:
        deadline = time.monotonic() + 120
        while not any(words[0] == "step" for _, _, _, words in campaign.notes_of(one)):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        time.sleep(3)
        before = [trial for _, _, trial, words in campaign.notes_of(one) if words[0] == "step"][-1]
        proxy.cut()
        campaign.injected += 1
        time.sleep(100)
        proxy.mend()
        campaign.wait_for_end(600, storage=away)
    finally:
        campaign.kill_all()
        proxy.cut()
    print("\none of two workers cut off for 100 s")
    campaign.account(overlaps_allowed=True)
    trained_by = {process for _, process, trial, words in campaign.read_notes() if trial == before}
    ended_by = [process for _, process, trial, words in campaign.read_notes() if trial == before and words[0] == "end"]
    after = [trial for _, _, trial, words in campaign.notes_of(one) if words[0] == "end" and trial > before]
    print(f"trial {before} was trained by {len(trained_by)}, ended by {len(ended_by)}; {len(after)} others after it")
    assert len(trained_by) == 2
    assert len(ended_by) == 1
    assert ended_by[0] != one.process.pid
    assert after


def host(folder, name):
    """The environment of a worker that shares no temporary folder with others."""
    (folder / name).mkdir(exist_ok=True)
    return {"TMPDIR": str(folder / name)}
