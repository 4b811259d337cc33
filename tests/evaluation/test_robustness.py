from automl.evaluation import robustness
from automl.evaluation.robustness import _AnnounceTime
from tests.fixtures.reporter import RecordingReporter


def test_long_copying_is_announced_once(monkeypatch):
    clock = iter((0.0, 1.0, 12.0, 20.0))
    monkeypatch.setattr(robustness.time, "monotonic", lambda: next(clock))
    reporter, seen = RecordingReporter(), []
    follow = _AnnounceTime(reporter, 100).follow(lambda done, total: seen.append((done, total)))
    for done in (1, 3, 4):
        follow(done, 50)
    assert seen == [(1, 50), (3, 50), (4, 50)]
    assert len(reporter.lines) == 1
    assert reporter.lines[0].startswith("making 100 copies takes about 6m40s if all take as long as the first ones")
