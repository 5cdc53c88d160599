"""The thorough way: one part of the standard library's modules, token by token, so that only comments count."""

import re
import sys
import sysconfig
import tokenize
from pathlib import Path

part, parts = map(int, sys.argv[1:])
files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[part::parts]
remarks = 0
for path in files:
    with tokenize.open(path) as source:
        tokens = list(tokenize.generate_tokens(source.readline))
    for token in tokens:
        if token.type == tokenize.COMMENT and re.search(r"\b(?:TODO|FIXME|XXX)\b", token.string):
            remarks += 1
print(f"{len(files)} files, {remarks} open remarks")
