"""Titan: a light, durable runtime for scripts, services and AI agents on any number of machines."""

__version__ = "0.1.0"
