from automl import reporter
from automl.reporter import OncePrinter


def test_a_line_is_printed_again_after_a_minute_only(monkeypatch):
    now, printed = [100.0], []
    monkeypatch.setattr(reporter.time, "monotonic", lambda: now[0])
    once = OncePrinter(printed.append)
    for seconds, line in (
        (0, "warning: the disk is full"),
        (1, "the disk is full"),
        (5, "room again"),
        (61, "the disk is full"),
    ):
        now[0] = 100.0 + seconds
        once.print_line(line)
    assert printed == ["warning: the disk is full", "room again", "the disk is full"]
