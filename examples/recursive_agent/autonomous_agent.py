"""An agent that sends a clone of itself when its task fails, and calls for a person after three failures.

Its memory between clones is the store: it may wake up on another machine. Arguments: the URL of the fragile
service, and the store's key of its count.
"""

import os
import sys
import urllib.request

from titan_sdk import TitanClient, TitanJob

FAILURES_MAX = 3
url, memory = sys.argv[1:]

with TitanClient() as client:
    failures = int(client.store_get(memory) or 0)
    print(f"[INFO] agent awake, attempt {failures + 1} of {FAILURES_MAX}")
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - it is the caller's own URL
            text = answer.read().decode()
    except OSError as error:
        # Not get and put: an increment is counted once, even when this job is lost and runs again.
        failures = client.store_incr(memory)
        print(f"[WARNING] {error}")
        if failures >= FAILURES_MAX:
            client.store_delete(memory)
            sys.exit(f"[ESCALATION] the task failed {failures} times; a person has to look at {url}")
        clone = TitanJob(
            job_id=f"agent_retry_{failures}", filename=os.path.basename(__file__), args=[url, memory], delay="200ms"
        )
        client.submit_job(clone)
        print(f"[INFO] {clone.job_id} follows")
    else:
        client.store_delete(memory)
        print(f"[SUCCESS] the service says: {text.strip()}")
