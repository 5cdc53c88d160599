"""`python -m titan.master`: one Master, as `titan up` starts it."""

import sys

from titan.master.process import main

sys.exit(main(sys.argv[1:]))
