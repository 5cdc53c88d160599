"""Read settings from a text, each NAME=VALUE, and show them with their defaults filled in."""

TEXT = """
# where to listen
host=0.0.0.0
port=8080
debug
path=/srv/a=b
"""
DEFAULTS = {"host": "127.0.0.1", "port": "80", "workers": "4"}


def read(text):
    found = {}
    for line in text.strip().splitlines():
        if line.startswith("#"):
            continue
        name, value = line.split("=")
        found[name] = value
    return found


settings = DEFAULTS | read(TEXT)
for name in sorted(settings):
    print(f"{name:<8} {settings[name] or 'on'}")
