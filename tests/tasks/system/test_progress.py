"""Progress as lines of a log and as an artifact."""

from __future__ import annotations

import pytest

from overedit.tasks.system.progress import shown


def test_progress_tells_rate_and_time_left(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[float, str]] = []
    monkeypatch.setattr("overedit.tasks.system.progress.SECONDS_BETWEEN_LINES", 0.0)
    monkeypatch.setattr("overedit.tasks.system.progress.SECONDS_BETWEEN_ARTIFACTS", 0.0)
    with caplog.at_level("INFO"), shown("Editing", "edits", artifact=lambda *what: told.append(what)) as progress:
        progress(25, 100)
        progress(100, 100)
    assert [percent for percent, _ in told] == [25.0, 100.0]
    assert "Editing: 25/100 edits" in caplog.messages[0]
    assert "edits/s" in caplog.messages[0]
    assert "s left" in caplog.messages[0]
