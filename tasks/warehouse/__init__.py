"""The warehouse: Parquet files whose names follow from what they hold, and SQL views over them."""
