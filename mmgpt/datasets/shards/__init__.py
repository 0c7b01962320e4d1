"""Shards: Parquet, Arrow and tar files with records and the images of these, read in place."""
