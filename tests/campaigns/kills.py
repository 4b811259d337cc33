"""Two hundred kills (SIGKILL) of four workers, at random moments: no trial is lost, doubled, or different for it.

    pytest tests/campaigns/kills.py -m campaign -n 0 -s
    AUTOML_CAMPAIGN_KILLS=20 AUTOML_CAMPAIGN_SEED=7 pytest tests/campaigns/kills.py -m campaign -n 0 -s

Half of the kills hit a worker at a random time, the others while it starts, takes, trains, writes a checkpoint or ends
a trial. Every tenth successor is a process from nothing, the others are forked (`campaign.py`).
`AUTOML_CAMPAIGN_STORAGE` is the URL of an empty database to try instead.
"""

import os
import random
import time

import pytest

from tests.campaigns.campaign import Campaign
from tests.campaigns.watched_worker import MOMENTS

pytestmark = pytest.mark.campaign

KILLS = int(os.environ.get("AUTOML_CAMPAIGN_KILLS", "200"))
SEED = int(os.environ.get("AUTOML_CAMPAIGN_SEED", "0"))
STORAGE = os.environ.get("AUTOML_CAMPAIGN_STORAGE")
WORKERS = 4
CALM = 20
"""Trials whose results are compared with those of a study that nobody disturbed."""


def choose_victim(campaign, rng):
    """A worker, when it does what was drawn, or after some time."""
    if rng.random() < 0.5:
        time.sleep(rng.uniform(0, 2))
        return rng.choice(campaign.workers)
    wanted, until = rng.choice([*MOMENTS.values()]), time.monotonic() + 3
    while time.monotonic() < until:
        for worker in rng.sample(campaign.workers, len(campaign.workers)):
            if worker.moment == wanted:
                time.sleep(rng.uniform(0, 0.005))
                return worker
        time.sleep(0.0005)
    return rng.choice(campaign.workers)


@pytest.mark.parametrize("database", ["given"] if STORAGE else ["sqlite", "postgresql"])
def test_kills(tmp_path, request, database):
    url = request.getfixturevalue("postgres") if database == "postgresql" else STORAGE
    (tmp_path / "calm").mkdir()
    calm = Campaign(tmp_path / "calm", CALM, pause=0)
    calm.start_worker()
    calm.wait_for_end(300)
    reference = calm.read_trials()

    (tmp_path / "kills").mkdir()
    campaign, rng = Campaign(tmp_path / "kills", max(CALM, KILLS), url), random.Random(SEED)
    for _ in range(WORKERS):
        campaign.start_worker()
    try:
        while campaign.injected < KILLS and campaign.replace_dead():
            victim = choose_victim(campaign, rng)
            if victim.code is not None:
                continue
            moment = victim.moment
            victim.kill()
            if victim.code == 0:
                continue
            campaign.moments[moment] += 1
            campaign.injected += 1
            campaign.workers.remove(victim)
            campaign.start_worker(fresh=campaign.injected % 10 == 0)
        campaign.wait_for_end(900)
    finally:
        campaign.kill_all()
    print(f"\nkill -9 of {WORKERS} workers, {database}")
    campaign.account(reference)
    assert campaign.injected == KILLS
