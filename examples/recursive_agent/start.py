"""Start the agent once, beside a service that fails at first, and watch it look after itself.

Run it as `python examples/recursive_agent/start.py`, with `titan up` running. `--failures N`: how often the service
fails before it works; with 3 or more the agent gives up and calls for a person.
"""

import argparse
import sys
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from titan_sdk import Run, TitanClient, TitanJob

AGENT = Path(__file__).with_name("autonomous_agent.py")


def fragile_service(failures: int) -> ThreadingHTTPServer:
    """Serve on a free port of this machine: 503 to the first `failures` requests, then an answer."""
    left = [failures]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            left[0] -= 1
            self.send_response(503 if left[0] >= 0 else 200)
            self.end_headers()
            if left[0] < 0:
                self.wfile.write(b"here is your data\n")

        def log_message(self, *_: object) -> None:
            """Say nothing: the jobs' logs tell the story."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def follow(client: TitanClient, agent_run_id: str) -> list[Run]:
    """Wait until no clone lives any more; return all of them, the oldest first."""
    told: list[Run] = []
    while True:
        runs = client.list_runs(agent_run_id=agent_run_id)[::-1]
        if len(runs) == len(told):
            return told
        for run in runs[len(told) :]:
            run.wait(timeout=120)  # a clone is submitted before its parent ends, so none is missed
            print(f"run {run.id[:8]} {run.name}:")
            print("".join(f"  {line}\n" for line in run.logs(run.jobs[0]["id"]).splitlines()), end="")
            told.append(run)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--failures", type=int, default=2)
    service = fragile_service(parser.parse_args().failures)
    agent_run_id = f"agent-{uuid.uuid4().hex[:8]}"
    url = f"http://127.0.0.1:{service.server_address[1]}/"
    with TitanClient() as client:
        job = TitanJob(job_id="agent", filename=AGENT, args=[url, f"{agent_run_id}/failures"])
        client.submit_job(job, agent_run_id=agent_run_id)
        last = follow(client, agent_run_id)[-1]
        print(f"agent run {agent_run_id} ended: {last.status}")
        return 0 if last.status == "COMPLETED" else 1


if __name__ == "__main__":
    sys.exit(main())
