"""Runs beyond one disk: sent to and fetched from wherever fsspec reaches, as Parquet, whole or not at all."""
