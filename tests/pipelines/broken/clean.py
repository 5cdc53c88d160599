"""A script that the broken pipelines name."""
