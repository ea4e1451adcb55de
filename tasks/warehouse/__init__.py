"""The warehouse: Parquet files named after the identity of their rows, and SQL views over them."""
