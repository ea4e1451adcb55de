"""Where the repository is, and its source files."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
FILES = [path for folder in ("editing", "tasks", "flows") for path in sorted((REPOSITORY / folder).rglob("*.py"))]
