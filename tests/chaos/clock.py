"""The wall clock of a daemon and of all that it starts, moved from outside: a small library that the loader puts in.

The product has no hook for this. The library, compiled here by the machine's C compiler, adds what a file says to
``CLOCK_REALTIME``; the monotonic clocks are left alone, as they are when somebody sets a machine's clock.
"""

from __future__ import annotations

import mmap
import os
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile long long *offset; /* seconds */
static int (*real)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void) {
    real = dlsym(RTLD_NEXT, "clock_gettime");
    const char *path = getenv("CHAOS_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *map = mmap(0, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (map != MAP_FAILED) offset = map;
}

int clock_gettime(clockid_t clock, struct timespec *at) {
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, at);
    if (result == 0 && offset && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        at->tv_sec += *offset;
    return result;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    (void)zone;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
"""


class Clock:
    """A wall clock that can be stepped. Give ``environment`` to the daemon. Raises ``OSError`` without a compiler."""

    def __init__(self, home: Path) -> None:
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            raise OSError("no C compiler is here, so the clock cannot be stepped")
        source, library, self._file = home / "clock.c", home / "clock.so", home / "clock"
        source.write_text(SOURCE, encoding="ascii")
        self._file.write_bytes(struct.pack("<q", 0))
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
        self.environment = {"LD_PRELOAD": str(library), "CHAOS_CLOCK": str(self._file)}
        self.steps = 0
        self._check()

    def step(self, seconds: int) -> None:
        """Have the clock differ from the machine's by so many seconds from now on."""
        self.steps += 1
        with self._file.open("r+b") as file, mmap.mmap(file.fileno(), 8) as held:
            held[:] = struct.pack("<q", seconds)

    def _check(self) -> None:
        """Raises ``OSError`` if a program does not see the step."""
        self.step(86_400)
        code = "import time; print(int(time.time()))"
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, **self.environment},
            check=True,
            capture_output=True,
        )
        self.step(0)
        self.steps = 0
        if not 86_000 < int(done.stdout) - time.time() < 87_000:
            raise OSError("the clock's library is not heeded here, so the clock cannot be stepped")
