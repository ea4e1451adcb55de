"""The pocket world: a generated world of people, places and relations, which a small shipped model really knows."""
