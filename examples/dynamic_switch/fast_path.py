"""The light way: look for open remarks in one package only."""

import re
import sysconfig
from pathlib import Path

package = Path(sysconfig.get_path("stdlib")) / "json"
files = sorted(package.glob("*.py"))
remarks = sum(len(re.findall(r"#.*\b(?:TODO|FIXME|XXX)\b", path.read_text("utf-8"))) for path in files)
print(f"{len(files)} files of json, {remarks} open remarks")
