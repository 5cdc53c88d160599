"""Small real scripts beside those of `as_without`: each prints the same from a fresh interpreter and from a warm one.

`OUT` is a folder for files. What a line says may not depend on pids, addresses, hashes of texts or on time.
"""

import sys

from tests.worker.as_without import HEAD, MAIN
from tests.worker.as_without import SCRIPTS as PROCESSES

STANDARD = {
    "argv and path": (
        "print(sys.argv[0], len(sys.argv), sys.orig_argv[1:2], sys.path[0] == os.getcwd(), len(sys.path))"
    ),
    "the whole path": (
        "print([os.path.basename(p) for p in sys.path[1:]], sys.prefix == sys.base_prefix, sys.executable)"
    ),
    "main": (
        "print(sorted(globals()))\nm = sys.modules['__main__']\nprint(m.__file__ == os.path.abspath('job.py'), "
        "m.__spec__, "
        "m.__package__, type(m.__loader__).__name__, m.__loader__.name, m.__doc__, m.__dict__ is globals())\n"
        "print(repr(m) == f'<module {m.__name__!r} from {m.__file__!r}>', __builtins__.__name__)"
    ),
    "no launcher in it": (
        "print([m for m in sys.modules if m.split('.')[0] == 'titan'])\n"
        "print([p for p in sys.path if 'launcher' in p])"
    ),
    "flags": "print(sys.flags, sys.warnoptions, sys._xoptions, sys.dont_write_bytecode, sys.getrecursionlimit())",
    "hooks": (
        "print(sys.excepthook is sys.__excepthook__, sys.displayhook is sys.__displayhook__, "
        "sys.unraisablehook is sys.__unraisablehook__, sys.gettrace(), sys.getprofile(), sys.exc_info(), "
        "hasattr(sys, 'last_value'), sys.breakpointhook is sys.__breakpointhook__)"
    ),
    "streams": (
        "for s in (sys.stdin, sys.stdout, sys.stderr):\n"
        "    print(s.name, s.mode, s.encoding, s.errors, s.line_buffering, s.write_through, s.newlines, s.isatty(), "
        "s.fileno(), type(s.buffer).__name__, s.buffer.raw.name, s.buffer.raw.mode, s.buffer.raw.closefd)\n"
        "    print(s.seekable(), s.buffer.raw.seekable(), s.buffer.raw._blksize)\n"
        "print(sys.stdout is sys.__stdout__, sys.stdin is sys.__stdin__, sys.stderr is sys.__stderr__)"
    ),
    "the encoding": (
        "import locale\nprint(sys.getfilesystemencoding(), sys.getdefaultencoding(), locale.getpreferredencoding(), "
        "locale.setlocale(locale.LC_ALL), os.environ.get('LC_CTYPE'))"
    ),
    "descriptors": (
        "print([os.readlink(f'/proc/self/fd/{n}').split(':')[0] for n in os.listdir('/proc/self/fd')][:3])"
    ),
    "the next descriptor": "print(open('job.py').fileno(), os.dup(0))",
    "the environment": (
        "print(sorted(os.environ), os.environb[b'TITAN_WORKDIR'] == os.getcwdb(), os.environ['TITAN_MAIN_PID'] == "
        "str(os.getpid()))\nimport subprocess\nprint(sorted(set(subprocess.run(['env'], capture_output=True, "
        "text=True)"
        ".stdout.split()) & {f'{k}={v}' for k, v in os.environ.items()}) == sorted(f'{k}={v}' for k, v in "
        "os.environ.items() if ' ' not in v))\nos.environ['ADDED'] = '1'\nos.system('echo $ADDED')"
    ),
    "what others see": (
        "print(open('/proc/self/cmdline').read().split('\\0')[1:])\nprint(open('/proc/self/comm').read())\n"
        "d = dict(e.split('=', 1) for e in open('/proc/self/environ').read().split('\\0') if e)\n"
        "print({k: v for k, v in os.environ.items() if k not in d}, sorted(d), d['TITAN_FENCE'] == "
        "os.environ['TITAN_FENCE'])"
    ),
    "what others see of a child": (
        "pid = os.fork()\nif not pid:\n    import time\n    time.sleep(60)\n"
        "print(b'TITAN_FENCE' in open(f'/proc/{pid}/environ', 'rb').read(), "
        "open(f'/proc/{pid}/cmdline').read().split('\\0')[1:])\nos.kill(pid, 9)\nos.waitpid(pid, 0)"
    ),
    "cwd": "print(os.path.samefile('.', os.environ['TITAN_WORKDIR']), os.listdir())",
    "umask and session": (
        "print(oct(os.umask(0)), os.getsid(0) == os.getpid() == os.getpgid(0), os.getpriority(0, 0))"
    ),
    "signals": (
        "import signal\nfor n in sorted(signal.valid_signals()):\n    print(int(n), signal.getsignal(n))\n"
        "print(signal.pthread_sigmask(signal.SIG_BLOCK, ()), signal.sigpending(), signal.set_wakeup_fd(-1), "
        "signal.getitimer(0))\n"
        "print([l for l in open('/proc/self/status') if l.startswith(('SigBlk', 'SigIgn', 'SigCgt', 'Threads'))])"
    ),
    "signals of a child": (
        "import subprocess\nprint([l for l in subprocess.run(['cat', '/proc/self/status'], capture_output=True, "
        "text=True).stdout.splitlines() if l.startswith(('SigBlk', 'SigIgn', 'SigCgt'))])"
    ),
    "resource limits": (
        "import resource as r\nr.setrlimit(r.RLIMIT_NOFILE, (64, 64))\nfiles = []\ntry:\n    while True:\n"
        "        files.append(open('/dev/null'))\nexcept OSError as error:\n    print(error, len(files))"
    ),
    "usage from zero": (
        "import resource as r, time\nu = r.getrusage(r.RUSAGE_CHILDREN)\nprint(u.ru_utime, u.ru_maxrss, "
        "time.process_time() < 5)"
    ),
    "collector": "import gc\nprint(gc.isenabled(), gc.get_threshold(), gc.callbacks, gc.get_debug(), gc.garbage)",
    "random is its own": (
        "import random\nopen(OUT + '/r', 'w').write('x')\nprint(random.Random(7).random())\nrandom.seed(3)\n"
        "print(random.random())"
    ),
    "argparse": (
        "import argparse\np = argparse.ArgumentParser()\np.add_argument('out')\np.add_argument('--n', type=int)\n"
        "print(p.parse_args().n, p.prog)\np.parse_args(['--n', 'x', 'y'])"
    ),
    "argparse help": "import argparse\nargparse.ArgumentParser(description='d').parse_args(['-h'])",
    "getopt and shlex": "import getopt, shlex\nprint(getopt.getopt(['-a', 'b'], 'a:'), shlex.split(\"a 'b c'\"))",
    "asyncio": (
        "import asyncio\nasync def main():\n    await asyncio.sleep(0)\n    async with asyncio.TaskGroup() as g:\n"
        "        t = g.create_task(asyncio.sleep(0, 'x'))\n    return t.result()\nprint(asyncio.run(main()))"
    ),
    "asyncio server": (
        "import asyncio\nasync def main():\n    async def echo(r, w):\n        w.write(await r.readline())\n"
        "        w.close()\n    s = await asyncio.start_server(echo, '127.0.0.1', 0)\n"
        "    r, w = await asyncio.open_connection(*s.sockets[0].getsockname())\n    w.write(b'hi\\n')\n"
        "    print(await r.read())\n    w.close()\n    s.close()\nasyncio.run(main())"
    ),
    "asyncio signal": (
        "import asyncio, signal\nasync def main():\n    e = asyncio.Event()\n"
        "    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, e.set)\n"
        "    os.kill(os.getpid(), signal.SIGUSR1)\n    await e.wait()\n    print('set')\nasyncio.run(main())"
    ),
    "asyncio error": "import asyncio\nasync def main():\n    raise RuntimeError('x')\nasyncio.run(main())",
    "threads": (
        "import threading\nt = [threading.Thread(target=print, args=(n,)) for n in range(3)]\n"
        "for one in t:\n    one.start()\n    one.join()\nprint(threading.main_thread() is "
        "threading.current_thread(), "
        "threading.active_count(), threading.current_thread().name, threading.get_native_id() == os.getpid())"
    ),
    "a thread outlives main": (
        "import threading, time\ndef late():\n    threading.main_thread().join()\n    print('late')\n"
        "threading.Thread(target=late).start()\nprint('main is done')\nraise SystemExit(4)"
    ),
    "a daemon thread": (
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\nprint('main')"
    ),
    "a daemon thread that works": (
        "import threading, time\nf = open(OUT + '/a', 'w')\nf.write('kept')\ndef work():\n    while True:\n"
        "        time.sleep(0.0001)\n        len(str(os.getpid()))\nfor _ in range(4):\n"
        "    threading.Thread(target=work, daemon=True).start()\ntime.sleep(0.05)\nsys.exit(5)"
    ),
    "an executor at exit": (
        "from concurrent.futures import ThreadPoolExecutor as T\nT(1).submit(lambda: print('done in the pool'))"
    ),
    "a thread's traceback": (
        "import threading\nt = threading.Thread(target=lambda: {}['x'], name='t')\nt.start()\nt.join()"
    ),
    "atexit in reverse": (
        "import atexit\n[atexit.register(print, n) for n in range(3)]\natexit.register(lambda: 1 / 0)\n"
        "@atexit.register\ndef last():\n    import json\n    print(json.dumps([1]))\nraise KeyError('x')"
    ),
    "atexit and sys.exit": "import atexit\n@atexit.register\ndef leave():\n    sys.exit(5)\nprint('x')",
    "weakref finalize": (
        "import weakref\nclass A: pass\na = A()\nweakref.finalize(a, print, 'finalized')\nprint('end')"
    ),
    "del at the end": (
        "class A:\n    def __init__(self, n):\n        self.n = n\n    def __del__(self):\n"
        "        print('del', self.n, helper())\ndef helper():\n    return os.getpid() > 0\na = A(1)\nb = [A(2)]\n"
        "b.append(b)\nprint('end')"
    ),
    "del in a module": (
        "import types\nm = types.ModuleType('made')\nsys.modules['made'] = m\n"
        "exec('class A:\\n    def __del__(self):\\n        print(\"del in a module\")\\na = A()', "
        "m.__dict__)\nm.self = m\n"
        "del m\nprint('end')"
    ),
    "del in a module before the others": (
        "import types\nm = types.ModuleType('made')\nsys.modules['made'] = m\n"
        "exec('class A:\\n    def __del__(self):\\n        print(\"del in a module\")\\na = A()', "
        "m.__dict__)\nm.self = m\ndel m\n"
        "for name in list(sys.modules)[:-1]:\n    sys.modules[name] = sys.modules.pop(name)\nprint('end')"
    ),
    "unflushed file": "f = open(OUT + '/a', 'w')\nf.write('kept')\nprint('end')",
    "unflushed file in a cycle": (
        "class A: pass\na = A()\na.me = a\na.f = open(OUT + '/a', 'w')\na.f.write('kept')\ndef g():\n    return a"
    ),
    "unflushed file and an error": "f = open(OUT + '/a', 'w')\nf.write('kept')\nraise ValueError",
    "unflushed file in a frame": (
        "def work():\n    f = open(OUT + '/a', 'w')\n    f.write('kept')\n    raise ValueError('in work')\nwork()"
    ),
    "unflushed C output": (
        "import ctypes\nctypes.CDLL(None).setvbuf(ctypes.c_void_p.in_dll(ctypes.CDLL(None), 'stdout'), None, 0, "
        "4096)\n"
        "ctypes.CDLL(None).puts(b'from C')\n"
    ),
    "unflushed output": "sys.stdout.write('no newline')",
    "unflushed output and an error": "print('at 10 %', end='')\n1 / 0",
    "unflushed output and an exit": (
        "print('at 10 %', end='')\nprint('said', end='', file=sys.stderr)\nsys.exit('done')"
    ),
    "unflushed output and atexit": "import atexit\natexit.register(os.system, 'echo later')\nprint('x', end='')",
    "unflushed errors": "sys.stderr.write('none here')",
    "a stream of its own": (
        "import io\nsys.stdout = io.TextIOWrapper(open(OUT + '/a', 'wb'), write_through=False)\nprint('to a file')"
    ),
    "a stream that notes its end": (
        "class S:\n    def write(self, text):\n        os.write(1, text.encode())\n    def flush(self):\n"
        "        pass\n    def __del__(self):\n        os.write(1, b'gone\\n')\nsys.stdout = S()\nprint('x')"
    ),
    "closed output": "sys.stdout.close()\nsys.exit(3)",
    "stdout is None": "sys.stdout = None\nprint('nowhere')",
    "full output": "sys.stdout = open('/dev/full', 'w')\nprint('x')",
    "full first output": "os.dup2(os.open('/dev/full', os.O_WRONLY), 1)\nsys.stdout.write('x')",
    "order of streams": (
        "for n in range(5):\n    print('out', n)\n    print('err', n, file=sys.stderr)\nos.system('echo "
        "shell')\nprint('end')"
    ),
    "input at its end": "print(sys.stdin.read() == '', list(sys.stdin))\ninput('say: ')",
    "exit": "exit(6)",
    "quit": "quit()",
    "exit of a text": "exit('a text \\u00e9')",
    "exit of an object": "sys.exit([1, {2}])",
    "exit of an exception": "raise SystemExit(ValueError('v'))",
    "exit of a tuple": "raise SystemExit(1, 2)",
    "exit of true": "sys.exit(True)",
    "exit of a huge number": "sys.exit(1 << 80)",
    "exit of 2 ** 32": "sys.exit(1 << 32)",
    "exit of a float": "sys.exit(1.5)",
    "exit of what cannot be shown": "class E:\n    def __str__(self):\n        raise ValueError\nsys.exit(E())",
    "exit of a surrogate": "sys.exit('\\ud800')",
    "exit of a text to a closed stderr": "sys.stderr.close()\nsys.exit('text')",
    "exit of a text without stderr": "sys.stderr = None\nsys.exit('text')",
    "exit of nothing": "raise SystemExit",
    "exit in a finally": "try:\n    1 / 0\nfinally:\n    sys.exit(9)",
    "exit of a subclass": "class E(SystemExit):\n    pass\nraise E(11)",
    "interrupt": "print('x')\nraise KeyboardInterrupt",
    "interrupt by signal": "import signal\nos.kill(os.getpid(), signal.SIGINT)\nsignal.pause()",
    "broken pipe at the end": (
        "r, w = os.pipe()\nos.dup2(w, 1)\nos.close(w)\nos.close(r)\nsys.stdout.write('x')"
    ),
    "traceback": "def f(n):\n    return f(n - 1) if n else 1 / n\nf(3)",
    "chained traceback": (
        "try:\n    try:\n        {}['a']\n    except KeyError as e:\n        raise ValueError('v') from e\n"
        "except ValueError:\n    raise TypeError('t')"
    ),
    "traceback group": "raise ExceptionGroup('g', [ValueError(1), ExceptionGroup('h', [KeyError('k')])])",
    "traceback notes": "e = ValueError('v')\ne.add_note('a note')\nraise e",
    "traceback module": (
        "import traceback\ntry:\n    1 / 0\nexcept ZeroDivisionError:\n    traceback.print_exc()\n"
        "print(traceback.format_exc())"
    ),
    "recursion": "def f():\n    f()\ntry:\n    f()\nexcept RecursionError as error:\n    print(error)",
    "syntax error": "def f(:\n    pass",
    "syntax error in eval": "eval('1 +')",
    "indentation": "if 1:\n  a = 1\n    b = 2",
    "import error": "import no_such_module",
    "from import error": "from os import no_such_name",
    "name error": "print(sis)",
    "excepthook": "sys.excepthook = lambda *a: print('hook', a[0].__name__, a[2].tb_lineno)\nraise ValueError",
    "a broken excepthook": "def hook(*a):\n    raise KeyError('hook')\nsys.excepthook = hook\nraise ValueError('v')",
    "an excepthook that exits": "sys.excepthook = lambda *a: sys.exit(12)\nraise ValueError",
    "no excepthook": "del sys.excepthook\nraise ValueError",
    "an error with all output closed": "os.close(1)\nos.close(2)\n1 / 0",
    "last value": (
        "import atexit\natexit.register(lambda: print(repr(sys.last_value), "
        "sys.last_traceback.tb_frame.f_code.co_name))\n"
        "raise ValueError('v')"
    ),
    "unraisable": "class A:\n    def __del__(self):\n        raise ValueError('in del')\na = A()\ndel a",
    "warnings": (
        "import warnings\nwarnings.warn('w1')\nwarnings.warn('w1', DeprecationWarning)\nprint(warnings.filters[:3])\n"
        "def f():\n    warnings.warn('w2', stacklevel=2)\nf()\n'a' is 'b'"
    ),
    "resource warning": "import warnings\nwarnings.simplefilter('always')\nopen('/dev/null')",
    "logging": (
        "import logging\nlogging.basicConfig(format='%(levelname)s %(name)s %(processName)s %(threadName)s "
        "%(message)s')\n"
        "logging.warning('w')\nlogging.getLogger('a.b').error('e', exc_info=False)\ntry:\n    1 / 0\n"
        "except ZeroDivisionError:\n    logging.exception('x')"
    ),
    "logging to a file": (
        "import logging\nlogging.basicConfig(filename=OUT + '/log', level=10, "
        "format='%(message)s')\nlogging.debug('d')\n"
        "from logging.handlers import MemoryHandler as M\nlogging.getLogger('m').addHandler("
        "M(100, target=logging.FileHandler(OUT + '/m')))\nlogging.getLogger('m').info('i')"
    ),
    "signal handlers": (
        "import signal\nsignal.signal(signal.SIGTERM, lambda *a: sys.exit(13))\nos.kill(os.getpid(), "
        "signal.SIGTERM)\n"
        "signal.pause()"
    ),
    "a signal at the end": (
        "import signal\nsignal.signal(signal.SIGTERM, lambda *a: sys.exit(13))\nclass A:\n    def __del__(self):\n"
        "        self.kill(os.getpid(), 15)\na = A()\na.kill = os.kill"
    ),
    "signal wait": (
        "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])\n"
        "signal.raise_signal(signal.SIGUSR1)\nprint(signal.sigwait([signal.SIGUSR1]))"
    ),
    "faulthandler": (
        "import faulthandler, signal\nprint(faulthandler.is_enabled())\nimport ctypes\n"
        "os.kill(os.getpid(), signal.SIGABRT)"
    ),
    "null pointer": "import ctypes\nctypes.string_at(0)",
    "stack overflow of memory": (
        "import resource as r\nr.setrlimit(r.RLIMIT_AS, (1 << 30, 1 << 30))\ntry:\n    b'x' * (1 << 32)\n"
        "except MemoryError as error:\n    print(repr(error))"
    ),
    "file size limit": (
        "import resource as r\nr.setrlimit(r.RLIMIT_FSIZE, (10, 10))\ntry:\n    open(OUT + '/a', 'wb', "
        "0).write(b'x' * 20)\n"
        "    open(OUT + '/a', 'ab', 0).write(b'x' * 20)\nexcept OSError as error:\n    print(error)"
    ),
    "sqlite transaction": (
        "import sqlite3\nc = sqlite3.connect(OUT + '/db')\nwith c:\n    c.execute('create table t(a)')\n"
        "    c.executemany('insert into t values (?)', [(1,), (2,)])\nprint(c.execute('select sum(a) from "
        "t').fetchall())"
    ),
    "temporary files": (
        "import tempfile\nd = tempfile.mkdtemp(dir=OUT)\nos.rename(d, OUT + '/d')\nprint(tempfile.gettempdir())\n"
        "with tempfile.SpooledTemporaryFile() as f:\n    f.write(b'x')\n    print(f.tell())"
    ),
    "pickle of main": (
        "import pickle, collections\nclass P:\n    x = 1\nN = collections.namedtuple('N', 'a b')\n"
        "data = pickle.dumps([P(), N(1, 2), P.__init_subclass__])\nprint(pickle.loads(data)[1], b'__main__' in data)"
    ),
    "pickle by a child": (
        "import pickle, subprocess\nclass P:\n    pass\nopen(OUT + '/p', 'wb').write(pickle.dumps(P))\n"
        "print(subprocess.run([sys.executable, '-c', 'import pickle, sys; print(pickle.load(open(sys.argv[1], "
        "\"rb\")))', "
        "OUT + '/p'], capture_output=True, text=True).stderr.splitlines()[-1:])"
    ),
    "dataclasses and typing": (
        "from __future__ import annotations\nimport dataclasses, typing\n@dataclasses.dataclass\nclass D:\n    a: "
        "int\n"
        "    b: list[str] = dataclasses.field(default_factory=list)\nprint(D(1), typing.get_type_hints(D), "
        "__annotations__)"
    ).replace("from __future__ import annotations\n", ""),
    "annotations of main": "x: int = 1\nprint(__annotations__)",
    "enum and abc": (
        "import enum, abc\nclass E(enum.Flag):\n    A = 1\n    B = 2\nprint(E.A | E.B, E.__module__)\n"
        "class C(abc.ABC):\n    @abc.abstractmethod\n    def f(self): ...\nC()"
    ),
    "doctest": (
        "import doctest\ndef f():\n    '''\n    >>> f()\n    1\n    '''\n    return "
        "2\nprint(doctest.testmod().failed)"
    ),
    "unittest": (
        "import unittest\nclass T(unittest.TestCase):\n    def test_a(self):\n        self.assertEqual(1, 2)\n"
        "import io\nr = "
        "unittest.TextTestRunner(stream=io.StringIO()).run(unittest.defaultTestLoader.loadTestsFromModule("
        "sys.modules['__main__']))\nprint(r)\nunittest.main(argv=['x'], testRunner=unittest.TextTestRunner("
        "stream=io.StringIO()))"
    ),
    "importlib": (
        "import importlib, importlib.util\nopen('mine.py', 'w').write('x = __name__, __file__[-7:]')\n"
        "importlib.invalidate_caches()\nimport mine\nprint(mine.x, importlib.util.find_spec('mine').origin[-7:])\n"
        "open('mine.py', 'w').write('x = 22')\nimportlib.reload(mine)\nprint(sorted(os.listdir()))"
    ),
    "importlib resources": (
        "import importlib.resources as r\nos.mkdir('pack')\nopen('pack/__init__.py', 'w').close()\n"
        "open('pack/data.txt', 'w').write('data')\nprint(r.files('pack').joinpath('data.txt').read_text())"
    ),
    "importlib metadata": (
        "import importlib.metadata as m\nprint(m.version('pytest') > '1', len(list(m.distributions())))"
    ),
    "a module beside it": (
        "open('helper.py', 'w').write('print(__name__)')\nimport helper\nprint(helper.__file__ != __file__)"
    ),
    "runpy": (
        "open('other.py', 'w').write('print(__name__, __file__)')\nimport runpy\nrunpy.run_path('other.py', "
        "run_name='__main__')"
    ),
    "pkgutil and site": (
        "import pkgutil, site\nprint(len({m.name for m in pkgutil.iter_modules()}), site.ENABLE_USER_SITE)"
    ),
    "sdk": "import titan_sdk\nprint(titan_sdk.__file__.split('/')[-3:], sorted(titan_sdk.__all__)[:3])",
    "sitecustomize": "import sitecustomize\nprint(os.path.basename(os.path.dirname(sitecustomize.__file__)))",
    "inspect of main": (
        "import inspect\ndef f():\n    return 1\nprint(inspect.getsource(f), inspect.getmodule(f), "
        "inspect.getsourcefile(f) == __file__)"
    ),
    "linecache": "import linecache\nprint(repr(linecache.getline(__file__, 1)))",
    "source encodings": "# -*- coding: latin-1 -*-\nprint('\\u00fc', __import__('sys').stdout.encoding)",
    "globals of exec": "exec('y = 1')\nprint(y, eval('__name__'), callable(compile))",
    "frames": "print(sys._getframe().f_code.co_name, sys._getframe().f_globals is globals(), __name__)",
    "time zone": "import time\nprint(time.tzname, time.localtime(0).tm_hour)",
    "time zone of its own": (
        "import time\nos.environ['TZ'] = 'Asia/Tokyo'\ntime.tzset()\nprint(time.localtime(0).tm_hour)"
    ),
    "platform": (
        "import platform\nprint(platform.python_version(), platform.system(), sys.implementation.name, "
        "sys.byteorder)"
    ),
    "decimal and fractions": (
        "import decimal, fractions\nprint(decimal.Decimal(1) / 7, decimal.getcontext(), fractions.Fraction(3, 9))"
    ),
    "json csv and re": (
        "import csv, json, re\njson.dump({'a': [1, None]}, "
        "sys.stdout)\nprint()\ncsv.writer(sys.stdout).writerow([1, 'a b'])\n"
        "print(re.findall(r'\\w+', 'a b'))"
    ),
    "hashes": "import hashlib, zlib\nprint(hashlib.sha256(b'x').hexdigest(), zlib.crc32(b'x'))",
    "archives": (
        "import zipfile, tarfile, gzip\nwith zipfile.ZipFile(OUT + '/z', 'w') as z:\n    z.writestr('a', 'b')\n"
        "z = zipfile.ZipFile(OUT + '/z')\nprint(z.namelist())\nsys.path.insert(0, OUT + '/z')"
    ).replace("with zipfile", "os.environ['SOURCE_DATE_EPOCH'] = '1'\nwith zipfile").replace(
        "z.writestr('a', 'b')", "z.writestr(zipfile.ZipInfo('a'), 'b')"
    ),
    "mmap": (
        "import mmap\nf = open(OUT + '/a', 'w+b')\nf.truncate(10)\nm = mmap.mmap(f.fileno(), 10)\nm[:2] = "
        "b'ab'\nm.close()"
    ),
    "select": (
        "import select, selectors\nr, w = os.pipe()\nos.write(w, b'x')\nprint(select.select([r], [], [], 0)[0] "
        "== [r], type(selectors.DefaultSelector()).__name__)"
    ),
    "http on itself": (
        "import http.server, threading, urllib.request\nclass H(http.server.BaseHTTPRequestHandler):\n    def "
        "do_GET(self):\n"
        "        self.send_response(200)\n        self.end_headers()\n        self.wfile.write(b'ok')\n"
        "    def log_message(self, *a):\n        pass\ns = http.server.HTTPServer(('127.0.0.1', 0), H)\n"
        "threading.Thread(target=s.serve_forever, daemon=True).start()\n"
        "print(urllib.request.urlopen(f'http://127.0.0.1:{s.server_port}').read())"
    ),
    "context variables": (
        "import contextvars\nv = contextvars.ContextVar('v', default=1)\nprint(v.get(), "
        "len(contextvars.copy_context()))"
    ),
    "code of C": (
        "import ctypes\nprint(ctypes.CDLL(None).getpid() == os.getpid(), ctypes.pythonapi.Py_IsInitialized())"
    ),
    "types of C": (
        "import ctypes\nc = ctypes.CDLL(None)\nprint(c.prctl.argtypes, c.mmap.restype, ctypes.get_errno(), "
        "ctypes.pythonapi.PyRun_FileExFlags.argtypes, ctypes.pythonapi.PyRun_FileExFlags.restype)"
    ),
    "getenv of C": (
        "import ctypes\nc = ctypes.CDLL(None)\nc.getenv.restype = ctypes.c_char_p\nos.environ['MINE'] = 'v'\n"
        "print(c.getenv(b'MINE'), c.getenv(b'TITAN_FENCE') == os.environb[b'TITAN_FENCE'], c.getenv(b'NOT_THERE'))"
    ),
    "raise by C": "import ctypes\nctypes.CDLL(None).raise_ if 0 else ctypes.CDLL(None)['raise'](15)",
    "authkey": (
        "import multiprocessing as m\nfrom multiprocessing import process\nprint(len(m.current_process().authkey), "
        "process.ORIGINAL_DIR == os.getcwd(), m.current_process().name, m.parent_process(), m.active_children(), "
        "m.current_process()._identity)"
    ),
    "spawn with a class of main": (
        "import multiprocessing as m\nclass C:\n    def __init__(self, n):\n        self.n = n\ndef work(c):\n"
        "    return C(c.n + 1)\n" + MAIN + "with m.get_context('spawn').Pool(1) as p:\n        "
        "print(p.apply(work, (C(1),)).n)"
    ),
    "semaphores": (
        "import multiprocessing as m\n" + MAIN + "s = m.Semaphore(2)\n    print(s.acquire(), s.acquire(), "
        "s.acquire(False))\n"
        "    e = m.Event()\n    p = m.Process(target=e.set)\n    p.start()\n    print(e.wait(30))\n    p.join()"
    ),
    "exec of itself": (
        "if len(sys.argv) < 3:\n    os.execv(sys.executable, [sys.executable, __file__, OUT, "
        "'again'])\nprint(sys.argv[2], len(sys.argv))"
    ),
    "fork and return": (
        "pid = os.fork()\nif pid:\n    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\nelse:\n    "
        "print('child')\n    sys.exit(3)"
    ),
    "fork and a file": (
        "f = open(OUT + '/a', 'w')\nf.write('child and parent')\nf.flush()\nif os.fork() == 0:\n    f.write(' "
        "c')\n    sys.exit()\n"
        "os.wait()\nf.write(' p')"
    ),
    "pid and parent": "print(os.getpid() > 1, os.getppid() > 0, os.getpid() == int(os.readlink('/proc/self')))",
    "unicode in files": "open(OUT + '/\\u00e9\\u4e16', 'w').write('\\U0001f680')\nprint(os.listdir(OUT))",
    "a strange argument": "print([os.fsencode(a) for a in sys.argv[2:]])",
}  # fmt: skip
if sys.version_info >= (3, 12):
    # A fresh one complains of the number itself.
    del STANDARD["exit of a huge number"]
if sys.version_info >= (3, 13):
    # Its own file complains a second time when it is let go of, here with a line of ours.
    del STANDARD["full output"]
    # A fresh one complains of threads.
    del STANDARD["exit of what cannot be shown"]
SCRIPTS = {f"processes: {name}": HEAD + text for name, text in PROCESSES.items()} | {
    name: (text if text.startswith("# -*-") else HEAD + text) for name, text in STANDARD.items()
}
