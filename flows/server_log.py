"""What the log of Prefect's server leaves out, so that its errors are seen; imported by the server's own process."""

from __future__ import annotations

import logging


class WithoutLockedDatabase(logging.Filter):
    """Leaves out that SQLite was locked when a worker's poll was noted.

    Prefect 3.7.7 logs this at about every poll, in a hundred lines, and then tries again.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is logged."""
        return "mark_deployments_ready" not in record.getMessage()
