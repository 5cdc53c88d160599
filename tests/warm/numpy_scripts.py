"""Scripts that use numpy and its BLAS: each prints the same from a fresh interpreter and from one that has it imported.

`OUT` is a folder for files. No number may depend on how a sum was split among threads, so sums are exact or rounded.
"""

from tests.worker.as_without import HEAD, MAIN

_THREADS = "def threads():\n    return len(os.listdir('/proc/self/task'))\n"
_PRODUCT = "def product(n=0):\n    a = np.arange(90_000.0).reshape(300, 300) % 7 + n\n    return int((a @ a).sum())\n"
_NUMPY = {
    "arrays": (
        "a = np.arange(12.0).reshape(3, 4)\nprint(a, repr(a.T), a.dtype, a.strides, a[1:, ::2].flags)\n"
        "print(np.array([('x', 1.5)], dtype=[('n', 'U3'), ('v', 'f4')]), np.array(['a', None]), np.bool_(1))\n"
        "print(np.datetime64('2026-01-31') + np.timedelta64(1, 'D'), np.finfo('f4'), np.iinfo('i2').max)\n"
        "print(np.get_printoptions(), np.geterr(), np.__version__, np.__file__)"
    ),
    "products": (
        _THREADS + _PRODUCT + "print(product(), threads())\na = np.arange(16.0).reshape(4, 4) + 9 * np.eye(4)\n"
        "print(np.linalg.solve(a, np.ones(4)).round(9), np.linalg.det(a).round(6), np.linalg.svd(a)[1].round(6))\n"
        "print(np.sort(np.linalg.eigvals(a).real).round(6), np.fft.rfft(np.ones(8)), np.einsum('ij,kj', a, a).sum())"
    ),
    "products in threads": (
        "from concurrent.futures import ThreadPoolExecutor as T\n" + _PRODUCT
        + "with T(4) as pool:\n    print(list(pool.map(product, range(8))))"
    ),
    "products on both sides of a fork": (
        _THREADS + _PRODUCT + "print(product(1), threads())\npid = os.fork()\nif not pid:\n"
        "    print(threads(), product(2), threads())\n    sys.exit(4)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), product(3), threads())"
    ),
    "pools by fork, spawn and forkserver": (
        "import multiprocessing as m\n" + _PRODUCT + MAIN + "for way in ('fork', 'spawn', 'forkserver'):\n"
        "        with m.get_context(way).Pool(2) as pool:\n            print(way, pool.map(product, range(3)))"
    ),
    "memory shared with a process": (
        "import multiprocessing as m\nfrom multiprocessing import shared_memory as s\ndef work(name):\n"
        "    held = s.SharedMemory(name)\n    a = np.ndarray((4,), 'i8', buffer=held.buf)\n    a *= 2\n    del a\n"
        "    held.close()\n" + MAIN + "held = s.SharedMemory(create=True, size=32)\n"
        "    a = np.ndarray((4,), 'i8', buffer=held.buf)\n    a[:] = range(4)\n"
        "    p = m.Process(target=work, args=(held.name,))\n    p.start()\n    p.join()\n    print(a)\n    del a\n"
        "    held.close()\n    held.unlink()"
    ),
    "a seed of its own": (
        "np.random.seed(7)\nprint(np.random.rand(3), np.random.randn(), np.random.permutation(6))\n"
        "print(np.random.RandomState(7).randint(0, 99, 5), np.random.default_rng(7).normal(size=2))\n"
        "print(np.random.get_state()[0], np.random.get_state()[2:])"
    ),
    "the state it begins with": (
        "print(np.random.get_state()[0], np.random.get_state()[2:], type(np.random.get_bit_generator()).__name__)"
    ),
    "warnings and errors": (
        "import warnings\nprint(np.array([1.0, 0]) / 0, np.int8(127) + np.int8(1), len(warnings.filters))\n"
        "with np.errstate(all='raise'):\n    try:\n        np.float64(1) / 0\n"
        "    except FloatingPointError as error:\n        print(error)\n"
        "print(5e-324 * np.ones(1), np.float64(2.2250738585072014e-308) / 2)\nnp.ones(3) @ np.ones(4)"
    ),
    "a traceback through it": "np.linalg.inv(np.zeros((2, 2)))",
    "too much memory": "np.empty(1 << 59)",
    "an exit of its kind": "sys.exit(np.int64(3))",
    "files": (
        "np.save(OUT + '/a', np.arange(3))\nm = np.memmap(OUT + '/m', 'i4', 'w+', shape=3)\nm[:] = 7\n"
        "np.savetxt(OUT + '/t', np.eye(2))\nf = open(OUT + '/raw', 'wb')\nf.write(np.arange(4).tobytes())\n"
        "print(np.load(OUT + '/a.npy'), np.loadtxt(OUT + '/t'))"
    ),
    "arrays at the end": (
        "import atexit\nclass A(np.ndarray):\n    def __del__(self):\n        print('del', np.asarray(self).sum())\n"
        "a = np.arange(4).view(A)\nb = [np.ones(2).view(A)]\nb.append(b)\n"
        "atexit.register(lambda: print(a @ a))\nprint('end')"
    ),
    "a daemon thread that multiplies": (
        "import threading\nready = threading.Event()\ndef work():\n    a = np.ones((64, 64))\n    while True:\n"
        "        a @ a\n        ready.set()\nthreading.Thread(target=work, daemon=True).start()\n"
        "ready.wait()\nsys.exit(6)"
    ),
    "an interpreter below": (
        "import subprocess\nprint(subprocess.run([sys.executable, '-c', 'import numpy as n; "
        "print((n.eye(300) @ n.eye(300)).sum())'], capture_output=True, text=True))"
    ),
    "python functions as ufuncs": (
        "print(np.frompyfunc(lambda a, b: a * b, 2, 1).outer([1, 2], [3, 4]), np.vectorize(str)([1, 2]))\n"
        "np.vectorize(lambda a: 1 / a)([0])"
    ),
}  # fmt: skip
NUMPY_SCRIPTS = {name: f"{HEAD}import numpy as np\n{text}" for name, text in _NUMPY.items()}
