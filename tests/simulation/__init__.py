"""Titan in one process without threads: the real core, whose every choice comes from a seed."""
