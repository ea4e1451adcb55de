"""A search among sites: a short trajectory at each, the scores, their ranking, and heat maps of it."""
