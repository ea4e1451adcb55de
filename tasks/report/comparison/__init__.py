"""Two runs side by side (`compare.py` says how)."""
