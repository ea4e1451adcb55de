"""The report of a run: its page, its pictures and its tables, all of them from the views (`page.py` says how)."""
