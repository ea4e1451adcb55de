"""What a run leaves behind for people: rows about the run itself, the report, the curve, and Prefect artifacts."""

from __future__ import annotations

import logging

logger = logging.getLogger(__name__)
