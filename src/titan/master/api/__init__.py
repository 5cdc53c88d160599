"""The HTTP API, one file a noun: each handler decodes, asks the engine, and shows what it answers."""
