"""Become a program that ends when the process that started this one ends, however that ends.

    python with_parent.py PID PROGRAM [ARGUMENTS]

PID is the number of that process. On systems other than Linux the program is only started.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h

parent, *program = sys.argv[1:]
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):
        sys.exit("the parent has ended")
os.execv(program[0], program)
