"""Bind the pages in the order of the files, and publish them as one artifact."""

import sys
from pathlib import Path

from titan_sdk import TitanClient

prefix, title = sys.argv[1:]
with TitanClient() as client:
    pages = [client.store_get(key) for key in client.store_list(f"{prefix}/page/")]
    names = [str(page).partition("\n")[0].lstrip("# ") for page in pages]
    index = "\n".join(f"- {name}" for name in names)
    Path("pages.md").write_text(f"# {title}\n\n{index}\n\n" + "\n\n".join(map(str, pages)) + "\n", encoding="utf-8")
    client.publish_artifact(prefix, "pages.md")
    for key in [*client.store_list(f"{prefix}/text/"), *client.store_list(f"{prefix}/page/")]:
        client.store_delete(key)
print(f"{len(pages)} pages")
