"""Where images can lie: one file a format, each of which gives a `pipelines.source.Source`."""
