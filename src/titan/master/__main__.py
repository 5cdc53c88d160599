"""`python -m titan.master`: one Master, as `titan up` starts it."""

import gc
import sys

gc.disable()  # until everything stands: looking for garbage in what is being imported takes a tenth of the start

from titan.master.process import main  # noqa: E402

sys.exit(main(sys.argv[1:]))
