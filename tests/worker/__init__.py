"""The worker against a Master double: a real server, so that what is tested is the process and the wire."""
