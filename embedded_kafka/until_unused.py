"""Become a program that ends when nobody uses it any more, however its users have ended.

    python until_unused.py USERS LOCK PROGRAM [ARGUMENTS]

LOCK is the number of a file that only the program is to have open. Each user of the program has a
shared lock on the file USERS, which the system takes away when a process ends. A child of the
program waits for an exclusive lock, which it gets once there is no other, ends the program, and
keeps who comes meanwhile waiting until that has happened.
"""

import fcntl
import os
import signal
import sys
import time

SECONDS = 60  # that the program has to end after SIGTERM; it may write its archive of classes

users, lock, *command = sys.argv[1:]
program = os.getpid()
if os.fork() == 0:
    os.close(int(lock))
    fcntl.flock(os.open(users, os.O_RDWR), fcntl.LOCK_EX)
    for number in (signal.SIGTERM, signal.SIGKILL):
        end = time.monotonic() + SECONDS
        # A program that has ended is this process's parent no more.
        if os.getppid() == program:
            os.kill(program, number)
        while os.getppid() == program and time.monotonic() < end:
            time.sleep(0.02)
    sys.exit()
os.execv(command[0], command)
