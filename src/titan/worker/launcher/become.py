"""A fork of the launcher becomes `python script.py args`: what a fresh interpreter would have, and how one ends.

A whole shutdown of the interpreter costs a fork more than all the rest. So it ends by the parts of one that a program
can see: threads joined, atexit run, `__main__` and what was imported let go of and collected, files and streams
flushed; then the process leaves at once. With daemon threads it is a whole shutdown.
"""

import _io
import _signal  # type: ignore[import-not-found]
import _weakref
import atexit
import builtins
import ctypes
import gc
import os
import sys
import time
from importlib.machinery import SourceFileLoader
from typing import Any, NoReturn

from titan.worker.launcher.frames import Given
from titan.worker.launcher.server import Server
from titan.worker.launcher.spare import Fork

FILE_INPUT = 257  # Py_file_input
FLUSH_FAILED = 120
_SYS_CLOSE_RANGE = 436  # the same on all machines
_SPARE = b"/\0titan-spare\0"  # folder and command line of one that waits
INTERRUPTED = -1000  # no exit code: it dies of SIGINT
_PYTHON_IGNORES = (_signal.SIGPIPE, _signal.SIGXFSZ)
LAST_DESCRIPTOR = (1 << 31) - 1
_libc = ctypes.CDLL(None)
_libc.fopen.restype = ctypes.c_void_p
_libc.fopen.argtypes = (ctypes.c_char_p, ctypes.c_char_p)
_realpath, _syscall = _libc.realpath, _libc.syscall
_realpath.restype = ctypes.c_void_p
_real = ctypes.create_string_buffer(os.pathconf("/", "PC_PATH_MAX") + 1)
_python = ctypes.PyDLL(None)  # not `ctypes.pythonapi`: what is said there of types, a script would find
_run_file = _python.PyRun_FileExFlags
_run_file.restype = ctypes.py_object
_run_file.argtypes = (
    ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.py_object, ctypes.py_object, ctypes.c_int, ctypes.c_void_p
)  # fmt: skip


def _type_of_unraisable() -> Any:
    seen: list[Any] = []
    before, sys.unraisablehook = sys.unraisablehook, lambda told: seen.append(type(told))

    class Failing:
        def __del__(self) -> None:
            raise ValueError

    Failing()
    sys.unraisablehook = before
    return seen[0]


_unraisable = _type_of_unraisable()
_streams_kept: list[Any] = []
_kept: list[Any] = []


class Become(BaseException):
    """Raised in a fork, so that it leaves the launcher's loop, to become a job."""

    def __init__(self, fork: Fork) -> None:
        self.fork = fork


class Program:
    """The job that a fork is to become, once it is told which. Called at the bottom of the stack; never returns.

    `launcher` is what it was. Nothing of that, nor of the way here, is taken apart, here and below: to do so would
    write to a page of memory, which the fork then gets a copy of, for nearly each object.
    """

    def __init__(self, server: Server, become: Become, launcher: object) -> None:
        self._server = server
        self._fork = become.fork
        self._left = become, launcher

    def __call__(self) -> NoReturn:
        """Be it."""
        code = 1
        try:
            if self._fork.ahead:
                prepare(self._server, self._fork)
            given = self._fork.become(self._server.place)
            take_place(self._server, given)
            code = execute(os.fsdecode(given.argv()[1]))
            code = finish(code, self._server)
        except BaseException as error:  # noqa: BLE001 - a fault of ours must not look like an end of the script
            sys.__excepthook__(type(error), error, error.__traceback__)
            code = 1
        finally:
            os._exit(code & 0xFF)


def signals_to_reset() -> list[tuple[int, Any]]:
    """Return which signals of this process have another handler than in a fresh interpreter, and that handler."""
    found = []
    for number in _signal.valid_signals():
        wanted = _signal.SIG_IGN if number in _PYTHON_IGNORES else _signal.SIG_DFL
        if number == _signal.SIGINT:
            wanted = _signal.default_int_handler
        if _signal.getsignal(number) != wanted:
            found.append((number, wanted))
    return found


def settle(server: Server) -> None:
    """Make the launcher as a job finds it, where it can be so itself."""
    sys.path_importer_cache.pop("", None)
    _kept.extend([sys.modules.pop(name) for name in server.own])
    _make_streams()


def prepare(server: Server, fork: Fork) -> None:
    """Use the time that a fork has which was made ahead."""
    first = 3
    for kept in fork.descriptors():
        _close(first, kept - 1)
        first = kept + 1
    _close(first, LAST_DESCRIPTOR)
    _rehearse(server)


def _rehearse(server: Server) -> None:
    """Be a job that does nothing, so that the pages of memory that are written to on the way are copied already.

    Nothing stays of it but what `take_place` and `execute` make anew. Others see which process it is.
    """
    before = sys.modules["__main__"]
    given = Given(_SPARE + b"".join([b"%s=%s\0" % pair for pair in os.environb.items()]), 2, len(_SPARE))
    server.place.show(given)
    _take_environment(server, given)
    time.tzset()
    _folder_of(b"/dev/null")
    execute("/dev/null")
    sys.stdout.write("")
    _flush_streams()
    _let_go(server)
    sys.modules["__main__"] = before


def take_place(server: Server, given: Given) -> None:
    """Make this process what exec would have made it: descriptors, environment, arguments, modules, streams."""
    _close(3, LAST_DESCRIPTOR)
    _take_environment(server, given)
    time.tzset()
    argv = given.argv()
    words = [os.fsdecode(word) for word in argv]
    sys.orig_argv[:] = words
    sys.argv = words[1:]
    sys.path.insert(0, _folder_of(argv[1]))
    _renew_modules()
    gc.freeze()  # the way here is no business of the script's collections
    gc.enable()


def _close(first: int, last: int) -> None:
    if first > last or _syscall(_SYS_CLOSE_RANGE, first, last, 0) == 0:
        return
    for name in os.listdir("/proc/self/fd"):
        if first <= int(name) <= last:
            try:
                os.close(int(name))
            except OSError:
                continue  # the one that listed them


def _take_environment(server: Server, given: Given) -> None:
    """Let C and Python see what is given, and what the interpreter and its imports would have set in the job."""
    server.place.begin_environment(given)
    data: dict[bytes, bytes] = os.environ._data  # type: ignore[attr-defined]
    data.clear()
    data.update(given.env())
    for name, value in server.added.items():
        os.environb[name] = value
    for name, (before, after) in server.reset.items():
        if data.get(name) == before:
            if after is None:
                del os.environb[name]
            else:
                os.environb[name] = after


def _folder_of(script: bytes) -> str:
    # What a folder of the job's is called is asked here, in C: the path module does it name by name.
    if _realpath(script, _real):
        return os.fsdecode(_real.value.rpartition(b"/")[0] or b"/")
    return os.path.dirname(os.path.realpath(os.fsdecode(script)))


def _make_streams() -> None:
    """Make stdout and stderr as a job has them, in the launcher: its own were made for other files than a pipe.

    Its stdin is as empty as a job's. Raises OSError when it has no descriptor left.
    """
    # A preloaded module may have kept it, and write there.
    _streams_kept.append(sys.stdout)
    reading, writing = os.pipe()
    for descriptor in (1, 2):
        own = os.dup(descriptor)
        os.dup2(writing, descriptor)
        if descriptor == 1:
            sys.stdout = sys.__stdout__ = _stream(1, "<stdout>", "utf-8", "surrogateescape")  # type: ignore[misc]
        else:
            sys.stderr = sys.__stderr__ = _stream(2, "<stderr>", "utf-8", "backslashreplace")  # type: ignore[misc]
        os.dup2(own, descriptor)
        os.close(own)
    os.close(reading)
    os.close(writing)


def _stream(descriptor: int, name: str, encoding: str, errors: str) -> Any:
    raw: Any = _io.FileIO(descriptor, "w", closefd=False)
    raw.name = name
    text: Any = _io.TextIOWrapper(_io.BufferedWriter(raw, raw._blksize), encoding, errors, "\n", True)
    text.mode = "w"
    return text


def _renew_modules() -> None:
    """Forget what a module keeps that is one process's own."""
    modules = sys.modules
    if "multiprocessing.process" in modules:
        process: Any = modules["multiprocessing.process"]
        process.ORIGINAL_DIR = os.getcwd()
        process.current_process().authkey = os.urandom(32)
    if "tempfile" in modules:
        setattr(modules["tempfile"], "tempdir", None)  # noqa: B010 - its type has none
    if "numpy.random" in modules:
        modules["numpy.random"].seed()
    generator = getattr(modules.get("torch"), "default_generator", None)
    if generator is not None:
        generator.seed()
    if "logging" in modules:
        log: Any = modules["logging"]
        log._startTime = time.time_ns() if isinstance(log._startTime, int) else time.time()


def execute(name: str) -> int:
    """Run the script `name` as `__main__` and return the exit code, or INTERRUPTED."""
    # As the interpreter does it: absolute, but not tidied.
    path = name if name.startswith("/") else f"{os.getcwd()}/{name.removeprefix('./')}"
    file = _libc.fopen(os.fsencode(name), b"rb")
    if not file:
        sys.stderr.write(f"{sys.orig_argv[0]}: can't open file {path!r}: [Errno 2] No such file or directory\n")
        return 2
    main = type(sys)("__main__")
    if "__annotations__" in sys.modules["__main__"].__dict__:
        main.__annotations__ = {}
    main.__dict__.update(__builtins__=builtins, __loader__=SourceFileLoader("__main__", path))
    main.__file__ = path
    if sys.version_info < (3, 15):
        main.__dict__["__cached__"] = None
    sys.modules["__main__"] = main
    names = main.__dict__
    del main
    return _ended_by(_failure_of(file, os.fsencode(path), names))


def _failure_of(file: int, path: bytes, names: dict[str, Any]) -> BaseException | None:
    # Frames of the script lead to this one and to those below it, so none may keep the failure: it would keep them.
    try:
        _run_file(file, path, FILE_INPUT, names, names, 1, None)
    except BaseException as error:  # noqa: BLE001 - what the interpreter prints at the end of a program
        return error
    finally:
        # In this order, and before anything is said of the failure.
        _flush_quietly("stderr")
        _flush_quietly("stdout")
    return None


def _ended_by(failure: BaseException | None) -> int:
    try:
        if failure is None:
            return 0
        if isinstance(failure, SystemExit):
            return exit_code(failure)
        return _print(failure)
    finally:
        del failure


def _print(failure: BaseException) -> int:
    """Show it as the interpreter does; return the exit code."""
    try:
        # The first entry is the call above; there is none of the script if it could not be compiled.
        failure.__traceback__ = failure.__traceback__ and failure.__traceback__.tb_next
        sys.last_type, sys.last_value, sys.last_traceback = type(failure), failure, failure.__traceback__
        if sys.version_info >= (3, 12):
            sys.last_exc = failure
        if not hasattr(sys, "excepthook"):
            _say("sys.excepthook is missing\n")
            sys.excepthook = sys.__excepthook__
        sys.excepthook(type(failure), failure, failure.__traceback__)
    except SystemExit as leaving:
        return exit_code(leaving)
    except BaseException as second:  # noqa: BLE001 - as above
        second.__traceback__ = second.__traceback__ and second.__traceback__.tb_next
        second.__context__ = None
        _say("Error in sys.excepthook:\n")
        sys.__excepthook__(type(second), second, second.__traceback__)
        _say("\nOriginal exception was:\n")
        sys.__excepthook__(type(failure), failure, failure.__traceback__)
    interrupted = isinstance(failure, KeyboardInterrupt)
    del failure
    return INTERRUPTED if interrupted else 1


def exit_code(leaving: SystemExit) -> int:
    """Return what the process ends with, printing what `sys.exit` was given if that is no number."""
    code = leaving.code
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF if -(1 << 63) <= code < 1 << 63 else 0xFF
    try:
        text = str(code)
        if sys.stderr is None:
            _say(text)
        else:
            sys.stderr.write(text)
    except BaseException:  # noqa: BLE001, S110 - nor does the interpreter say why
        pass
    _say("\n")
    return 1


def _say(text: str) -> None:
    """Write it as `PySys_WriteStderr` does: where that stream is of no use, to the descriptor."""
    try:
        sys.stderr.write(text)
    except BaseException:  # noqa: BLE001
        _libc.dprintf(2, b"%s", text.encode("utf-8", "backslashreplace"))


def _flush_quietly(name: str) -> bool:
    stream = getattr(sys, name, None)
    try:
        if stream is not None and not getattr(stream, "closed", False):
            stream.flush()
    except BaseException:  # noqa: BLE001 - as the interpreter
        return False
    return True


def finish(code: int, server: Server) -> int:
    """End as the interpreter would, up to leaving."""
    if "threading" in sys.modules:
        try:
            sys.modules["threading"]._shutdown()
        except BaseException as error:  # noqa: BLE001 - said, as the interpreter says it
            _say_ignored(error, sys.modules["threading"], "on threading shutdown")
    if code != INTERRUPTED and len(sys._current_frames()) > 1:
        # Daemon threads must not see what follows; only the interpreter's own shutdown can hold them.
        gc.unfreeze()
        _python.Py_Exit(code & 0xFF)
    atexit._run_exitfuncs()
    flushed = _flush_streams()
    sys.last_type = sys.last_value = sys.last_traceback = None
    if sys.version_info >= (3, 12):
        sys.last_exc = None  # type: ignore[assignment]
    builtins.__dict__.pop("_", None)
    _drop_handlers()
    sys.stdin, sys.stdout, sys.stderr = sys.__stdin__, sys.__stdout__, sys.__stderr__
    _let_go(server)
    flushed = flushed and _flush_streams()
    _libc.fflush(None)
    if code == INTERRUPTED:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
        os.kill(os.getpid(), _signal.SIGINT)
    return code if flushed else FLUSH_FAILED


def _drop_handlers() -> None:
    # As the interpreter does: a handler must not run in what is taken apart.
    for number in _signal.valid_signals():
        if callable(_signal.getsignal(number)):
            _signal.signal(number, _signal.SIG_DFL)


def _let_go(server: Server) -> None:
    """Let go of what the script made and imported: first as garbage, then of what something still holds."""
    # Once before, as the interpreter does: files in a cycle are then closed from the outermost layer in, and keep all.
    gc.collect()
    names = _names_to_let_go(server)
    kept = []
    for name in names:
        try:
            kept.append(_weakref.ref(sys.modules[name]))
        except TypeError:
            pass  # anything may stand in sys.modules
        sys.modules[name] = None  # type: ignore[assignment]
    gc.collect()
    for reference in reversed(kept):
        module = reference()
        if module is not None:
            _clear(module.__dict__)
            del module
    gc.collect()


def _names_to_let_go(server: Server) -> list[str]:
    """Return `__main__` and what the script imported."""
    found: list[str] = []
    # What is new comes last. To read what was there is to count references to it: to write.
    for name in reversed(sys.modules):
        if name == server.last:
            break
        found.append(name)
    if len(sys.modules) - len(found) != server.count:
        found = list(reversed(sys.modules))  # the script has moved them
    if "__main__" in sys.modules:
        found.append("__main__")
    return [name for name in reversed(found) if name == "__main__" or name not in server.modules]


def _clear(names: dict[str, Any]) -> None:
    for private in (True, False):
        for name in list(names):
            if name != "__builtins__" and (name.startswith("_") and not name.startswith("__")) is private:
                names[name] = None


def _flush_streams() -> bool:
    whole = True
    for stream in {id(one): one for one in (sys.stdout, sys.__stdout__, *_streams_kept) if one is not None}.values():
        whole = _flush(stream) and whole
    return _flush_quietly("stderr") and whole


def _flush(stream: Any) -> bool:
    try:
        if stream is not None and not getattr(stream, "closed", False):
            stream.flush()
    except BaseException as error:  # noqa: BLE001 - said, as the interpreter says it
        _say_ignored(error, stream, f"{'while' if sys.version_info >= (3, 14) else 'on'} flushing sys.stdout")
        return False
    return True


def _say_ignored(error: BaseException, where: Any, when: str) -> None:
    error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
    told = (f"Exception ignored {when}", None) if sys.version_info >= (3, 13) else (None, where)
    sys.unraisablehook(_unraisable((type(error), error, error.__traceback__, *told)))
