"""The search for the edit count at which a model collapses."""
