"""The search for a method's settings on validation edits, and the preset files that it writes."""
