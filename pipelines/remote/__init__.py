"""Shards that lie elsewhere: fsspec URLs, brought to a bounded local cache ahead of use."""
