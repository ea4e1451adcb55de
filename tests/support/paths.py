"""Where the repository is, and its code."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDERS = ("editing", "tasks", "flows")
FILES = [path for folder in FOLDERS for path in sorted((REPOSITORY / folder).rglob("*.py"))]
"""Every source file of these folders."""
