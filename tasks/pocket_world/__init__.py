"""The pocket world: a generated world of people, places and relations that the small shipped model knows."""
