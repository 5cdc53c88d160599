"""A machine with GPUs, as far as a worker can see: a program named nvidia-smi on PATH."""

import os
from pathlib import Path

UUIDS = tuple(f"GPU-{number}1111111-2222-3333-4444-555555555555" for number in range(8))
LINE = "{index}, {uuid}, NVIDIA H200, 143771"


def listing(count: int) -> str:
    """What the real program prints for `count` devices."""
    return "".join(LINE.format(index=index, uuid=UUIDS[index]) + "\n" for index in range(count))


def fake_program(folder: Path, script: str) -> dict[str, str]:
    """Put `script` into `folder` as nvidia-smi and return an environment whose PATH begins there."""
    folder.mkdir(exist_ok=True)
    program = folder / "nvidia-smi"
    program.write_text(script)
    program.chmod(0o700)
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


def gpus(folder: Path, count: int) -> dict[str, str]:
    """A machine with `count` devices; a question of another shape than the real program takes is an error."""
    return fake_program(
        folder,
        "#!/bin/sh\n"
        '[ "$*" = "--query-gpu=index,uuid,name,memory.total --format=csv,noheader,nounits" ] || exit 2\n'
        f"cat <<'END'\n{listing(count)}END\n",
    )
