"""What /proc tells others about a process: a fork shows its own command line and environment, not its server's.

The worker finds what a killed one left by the marks in /proc/PID/environ, so this is no cosmetics.
"""

import ctypes
import errno
import os

from titan.worker.launcher.frames import Given

_PR_SET_MM = 35
_PR_SET_MM_MAP = 14
_ANONYMOUS = 0x4022  # MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
_READ_WRITE = 3
_ROOM_BYTES = 16 << 20
_POINTER_BYTES = ctypes.sizeof(ctypes.c_void_p)
_NO_FILE = 0xFFFFFFFF
_FIRST_FIELD = 3  # the number, in proc(5), of the first field of /proc/PID/stat after the name
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long
)  # fmt: skip
_environ = ctypes.c_void_p.in_dll(_libc, "environ")
_libc.sbrk.restype = ctypes.c_void_p
_libc.sbrk.argtypes = (ctypes.c_long,)
_libc.prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong)


class _Map(ctypes.Structure):
    # struct prctl_mm_map: addresses of the parts of a program in memory.
    _fields_ = (
        *((name, ctypes.c_uint64) for name in (
            "start_code", "end_code", "start_data", "end_data", "start_brk", "brk", "start_stack",
            "arg_start", "arg_end", "env_start", "env_end", "auxv",
        )),
        ("auxv_size", ctypes.c_uint32),
        ("exe_fd", ctypes.c_uint32),
    )  # fmt: skip


# Where proc(5) counts them.
_FIELDS = {
    "start_code": 26, "end_code": 27, "start_stack": 28, "start_data": 45, "end_data": 46, "start_brk": 47,
    "arg_start": 48, "arg_end": 49, "env_start": 50, "env_end": 51,
}  # fmt: skip


class Place:
    """The layout of this process, read once before any fork. Raises OSError where the kernel lets nobody change it.

    It has room for what one fork is to show, which costs no memory before.
    """

    def __init__(self) -> None:
        with open("/proc/self/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        self._map = _Map(exe_fd=_NO_FILE)
        for name, number in _FIELDS.items():
            setattr(self._map, name, int(fields[number - _FIRST_FIELD]))
        self._set()
        room = _libc.mmap(None, _ROOM_BYTES, _READ_WRITE, _ANONYMOUS, -1, 0)
        if room in (None, ctypes.c_void_p(-1).value):
            raise OSError(ctypes.get_errno(), "mmap")
        self._room: int = room
        whole = (ctypes.c_char * _ROOM_BYTES).from_address(room)
        self._bytes = memoryview(whole).cast("B")
        self._pointers = self._bytes.cast("P")

    def show(self, given: Given) -> None:
        """Make /proc/self/cmdline and environ say what is `given` from here on, also in children. Raises OSError."""
        shown = given.block[given.words_at :]
        if len(shown) > _ROOM_BYTES // 4:
            raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))
        self._bytes[: len(shown)] = shown
        middle = self._room + given.env_at - given.words_at
        self._map.arg_start, self._map.arg_end = self._room, middle
        self._map.env_start, self._map.env_end = middle, self._room + len(shown)
        self._set()

    def begin_environment(self, given: Given) -> None:
        """Make what is shown of the environment the one that C sees, as it is after an exec."""
        at = self._room + given.env_at - given.words_at
        table = row = (len(given.block) - given.words_at) // _POINTER_BYTES + 1
        for entry in given.entries():
            self._pointers[row] = at
            at += len(entry) + 1
            row += 1
        self._pointers[row] = 0
        _environ.value = self._room + table * _POINTER_BYTES

    def _set(self) -> None:
        self._map.brk = _libc.sbrk(0)
        if _libc.prctl(_PR_SET_MM, _PR_SET_MM_MAP, ctypes.byref(self._map), ctypes.sizeof(self._map), 0):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
