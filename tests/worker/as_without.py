"""Small programs that do what real ones do with processes; each prints the same wherever it runs.

`OUT` is a folder for files. What a line says may not depend on pids or on time.
"""

HEAD = "import os, sys\nOUT = sys.argv[1]\n"
MAIN = "if __name__ == '__main__':\n    "

SCRIPTS = {
    "run": "import subprocess\nprint(subprocess.run(['echo', 'a b'], capture_output=True, text=True))",
    "run check": (
        "import subprocess\ntry:\n    subprocess.run(['sh', '-c', 'exit 3'], check=True)\n"
        "except subprocess.CalledProcessError as error:\n    print(error)"
    ),
    "check_output": "import subprocess\nprint(subprocess.check_output('echo $((6 * 7)); echo no >&2', shell=True))",
    "a missing program": "import subprocess\nsubprocess.run(['/no/such/program'])",
    "run timeout": (
        "import subprocess\ntry:\n    subprocess.run(['sleep', '60'], timeout=0.2)\n"
        "except subprocess.TimeoutExpired as error:\n    print(error.cmd)"
    ),
    "popen pipes": (
        "import subprocess as s\nfirst = s.Popen(['printf', 'b\\\\na\\\\n'], stdout=s.PIPE)\n"
        "second = s.Popen(['sort'], stdin=first.stdout, stdout=s.PIPE)\nfirst.stdout.close()\n"
        "print(second.communicate(), first.wait())"
    ),
    "popen talk": (
        "import subprocess as s\ncat = s.Popen(['cat'], stdin=s.PIPE, stdout=s.PIPE, text=True)\n"
        "print(cat.communicate('x' * 300_000)[0] == 'x' * 300_000, cat.returncode)"
    ),
    "popen kill": "import subprocess as s\np = s.Popen(['sleep', '60'])\np.kill()\nprint(p.wait())",
    "popen terminate": "import subprocess as s\np = s.Popen(['sleep', '60'])\np.terminate()\nprint(p.wait())",
    "new session": (
        "import subprocess as s, signal\n"
        "p = s.Popen(['sh', '-c', 'sleep 60 & echo up; wait'], stdout=s.PIPE, start_new_session=True)\n"
        "print(p.stdout.readline(), os.getsid(p.pid) == p.pid)\nos.killpg(p.pid, signal.SIGTERM)\n"
        "print(p.wait(), p.stdout.read())"
    ),
    "inherited output": (
        "import subprocess\nprint('first', flush=True)\nsubprocess.run(['echo', 'second'])\nprint('third')"
    ),
    "shell pipeline": (
        "import subprocess\nprint(subprocess.run('yes | head -n 3', shell=True, capture_output=True).stdout)"
    ),
    "pool fork": (
        "import multiprocessing as m\n" + MAIN + "with m.get_context('fork').Pool(3) as pool:\n"
        "        print(pool.map(abs, range(-9, 9)))"
    ),
    "pool spawn": (
        "import multiprocessing as m\ndef square(n):\n    return n * n\n"
        + MAIN
        + "with m.get_context('spawn').Pool(2) as pool:\n        print(pool.map(square, range(9)))"
    ),
    "pool forkserver": (
        "import multiprocessing as m\ndef square(n):\n    return n * n\n"
        + MAIN
        + "with m.get_context('forkserver').Pool(2) as pool:\n        print(pool.map(square, range(9)))"
    ),
    "process and queue": (
        "import multiprocessing as m\ndef work(q):\n    q.put(['from', 'below'])\n"
        + MAIN
        + "c = m.get_context('fork')\n    q = c.Queue()\n    p = c.Process(target=work, args=(q,))\n    p.start()\n"
        "    print(q.get())\n    p.join()\n    print(p.exitcode)"
    ),
    "process dies": (
        "import multiprocessing as m, signal\ndef work():\n    os.kill(os.getpid(), 9)\n"
        + MAIN
        + "p = m.get_context('fork').Process(target=work)\n    p.start()\n    p.join()\n    print(p.exitcode)"
    ),
    "daemon process": (
        "import multiprocessing as m, signal\n"
        + MAIN
        + "p = m.get_context('fork').Process(target=signal.pause, daemon=True)\n    p.start()\n    print(p.is_alive())"
    ),
    "manager": (
        "import multiprocessing as m\n" + MAIN + "with m.Manager() as manager:\n        d = manager.dict(a=1)\n"
        "        d['b'] = 2\n        print(dict(d))"
    ),
    "shared memory": (
        "from multiprocessing.shared_memory import SharedMemory as S\na = S(create=True, size=64)\n"
        "b = S(a.name)\nb.buf[0] = 7\nprint(a.buf[0])\nb.close()\na.close()\na.unlink()\n"
        "try:\n    S(a.name)\nexcept FileNotFoundError:\n    print('unlinked')"
    ),
    "resource tracker": (
        "from multiprocessing.shared_memory import SharedMemory as S\n"
        "a = S(name=f'/leak{os.getpid()}', create=True, size=8)\n"
        "open(OUT + '/made', 'w').close()\nos.environ['PYTHONWARNINGS'] = 'ignore'\n"
        "import subprocess\nprint(subprocess.run([sys.executable, '-c', \"from multiprocessing.shared_memory import "
        'SharedMemory as S; S(create=True, size=8)"], stderr=subprocess.DEVNULL).returncode)\na.close()\na.unlink()'
    ),
    "value and lock": (
        "import multiprocessing as m\ndef add(v):\n    for _ in range(200):\n        with v.get_lock():\n"
        "            v.value += 1\n" + MAIN + "c = m.get_context('fork')\n    v = c.Value('i', 0)\n"
        "    ps = [c.Process(target=add, args=(v,)) for _ in range(3)]\n    [p.start() for p in ps]\n"
        "    [p.join() for p in ps]\n    print(v.value)"
    ),
    "process pool": (
        "from concurrent.futures import ProcessPoolExecutor as P\n"
        + MAIN
        + "with P(2) as pool:\n        print(list(pool.map(abs, range(-5, 0))))"
    ),
    "broken pool": (
        "from concurrent.futures import ProcessPoolExecutor as P\nfrom concurrent.futures.process import "
        "BrokenProcessPool\n"
        + MAIN
        + "try:\n        with P(1) as pool:\n            pool.submit(os._exit, 1).result()\n"
        "    except BrokenProcessPool:\n        print('broken')"
    ),
    "thread pool": (
        "from concurrent.futures import ThreadPoolExecutor as T\n"
        "with T(4) as pool:\n    print(sum(pool.map(abs, range(99))))"
    ),
    "asyncio exec": (
        "import asyncio as a\nasync def main():\n"
        "    p = await a.create_subprocess_exec('cat', stdin=a.subprocess.PIPE, stdout=a.subprocess.PIPE)\n"
        "    print(await p.communicate(b'hello'), p.returncode)\na.run(main())"
    ),
    "asyncio many": (
        "import asyncio as a\nasync def one(n):\n    p = await a.create_subprocess_exec('sh', '-c', f'exit {n}')\n"
        "    return await p.wait()\nasync def main():\n    print(await a.gather(*map(one, range(8))))\na.run(main())"
    ),
    "asyncio timeout": (
        "import asyncio as a\nasync def main():\n    p = await a.create_subprocess_exec('sleep', '60')\n    try:\n"
        "        await a.wait_for(p.wait(), 0.2)\n    except TimeoutError:\n"
        "        p.kill()\n    print(await p.wait())\n"
        "a.run(main())"
    ),
    "fork and wait": (
        "for n in (0, 1, 200):\n    if os.fork() == 0:\n        os._exit(n)\n"
        "    print(os.waitstatus_to_exitcode(os.wait()[1]))"
    ),
    "waitpid of one": (
        "a, b = [os.fork() or os._exit(n) for n in (4, 5)]\n"
        "print([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in (b, a)])"
    ),
    "wait for none": "try:\n    os.wait()\nexcept ChildProcessError as error:\n    print(error)",
    "exec": "print('before', flush=True)\nos.execvp('sh', ['sh', '-c', 'echo after; exit 9'])",
    "posix_spawn": (
        "pid = os.posix_spawn('/bin/sh', ['sh', '-c', 'exit 6'], os.environ)\nprint(os.waitpid(pid, 0)[1] >> 8)"
    ),
    "signal to self": (
        "import signal\nsignal.signal(signal.SIGUSR1, lambda *_: print('got it'))\n"
        "os.kill(os.getpid(), signal.SIGUSR1)\nsignal.raise_signal(signal.SIGUSR1)"
    ),
    "alarm": (
        "import signal\nsignal.signal(signal.SIGALRM, lambda *_: print('rang'))\n"
        "signal.setitimer(0, 0.05)\nsignal.pause()"
    ),
    "keyboard interrupt": (
        "import signal\ntry:\n    os.kill(os.getpid(), signal.SIGINT)\n    signal.pause()\n"
        "except KeyboardInterrupt:\n    print('interrupted')"
    ),
    "dies of TERM": "import signal\nprint('x', flush=True)\nos.kill(os.getpid(), signal.SIGTERM)\nsignal.pause()",
    "dies of SEGV": "import signal\nos.kill(os.getpid(), signal.SIGSEGV)",
    "aborts": "os.abort()",
    "group signal": (
        "import signal\nos.setpgid(0, 0) if os.getpgid(0) != os.getpid() else None\n"
        "signal.signal(signal.SIGTERM, lambda *_: print('the group'))\nos.killpg(0, signal.SIGTERM)"
    ),
    "signal defaults": (
        "import signal\n"
        "print([signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE)])\n"
        "print(signal.pthread_sigmask(signal.SIG_BLOCK, []))"
    ),
    "sigpipe of a child": (
        "import subprocess\nprint(subprocess.run('yes | :; echo $?', shell=True, capture_output=True).stdout)"
    ),
    "broken pipe": (
        "r, w = os.pipe()\nos.close(r)\ntry:\n    os.write(w, b'x')\nexcept BrokenPipeError as error:\n    print(error)"
    ),
    "exit code": "sys.exit(7)",
    "exit text": "sys.exit('because')",
    "exit none": "sys.exit(None)",
    "exit too large": "sys.exit(259)",
    "exit negative": "sys.exit(-1)",
    "os exit": "print('flushed?', flush=True)\nos._exit(8)",
    "exception": "raise ValueError('no')",
    "exception in thread": (
        "import threading\nt = threading.Thread(target=lambda: 1 / 0)\n"
        "threading.excepthook = lambda a: print(a.exc_type)\nt.start()\nt.join()"
    ),
    "threads at exit": (
        "import threading\ngo = threading.Event()\n"
        "threading.Thread(target=lambda: (go.wait(), print('last'))).start()\n"
        "print('first')\ngo.set()"
    ),
    "atexit": "import atexit\natexit.register(print, 'second')\nprint('first')\nsys.exit(2)",
    "umask": "open(OUT + '/file', 'w').close()\nos.mkdir(OUT + '/folder')\nprint(oct(os.umask(0)))",
    "limits": (
        "import resource as r\n"
        "print([r.getrlimit(n) for n in (r.RLIMIT_NOFILE, r.RLIMIT_CORE, r.RLIMIT_STACK, r.RLIMIT_AS)])"
    ),
    "priority": "print(os.nice(0), sorted(os.sched_getaffinity(0)), os.sched_getscheduler(0))",
    "tempfile": (
        "import tempfile\nwith tempfile.NamedTemporaryFile('w+') as f:\n"
        "    f.write('x')\n    f.seek(0)\n    print(f.read())\n"
        "with tempfile.TemporaryDirectory() as d:\n    print(os.listdir(d))"
    ),
    "files": (
        "open(OUT + '/a.txt', 'w').write('text')\n"
        "os.symlink('a.txt', OUT + '/b')\nos.rename(OUT + '/a.txt', OUT + '/c')"
    ),
    "main pickling": (
        "import pickle\nclass Thing:\n    def __eq__(self, other):\n        return type(self) is type(other)\n"
        "print(pickle.loads(pickle.dumps(Thing())) == Thing(), Thing.__module__, __name__)"
    ),
    "main file": "print(os.path.basename(__file__), os.path.basename(sys.argv[0]), len(sys.argv))",
    "stdin": "print(repr(sys.stdin.read()))\ntry:\n    input()\nexcept EOFError:\n    print('EOF')",
    "stdin of a child": "import subprocess\nprint(subprocess.run(['cat'], capture_output=True))",
    "descriptors": "print(sorted(int(n) for n in os.listdir('/proc/self/fd'))[:3])\nr, w = os.pipe()\nprint(r, w)",
    "unicode": "print('\\u00fc \\u4e16 \\U0001f680')\nprint(sys.stdout.encoding)",
    "bytes": "sys.stdout.buffer.write(bytes(range(256)))",
    "much output": "for n in range(20_000):\n    print(n)",
    "file lock": (
        "import fcntl\nf = open(OUT + '/lock', 'w')\nfcntl.flock(f, fcntl.LOCK_EX)\ng = open(OUT + '/lock')\n"
        "try:\n    fcntl.flock(g, fcntl.LOCK_EX | fcntl.LOCK_NB)\nexcept BlockingIOError:\n    print('held')"
    ),
    "sockets": (
        "import socket\na, b = socket.socketpair()\na.send(b'x')\nprint(b.recv(9))\n"
        "s = socket.create_server(('127.0.0.1', 0))\nprint(s.fileno() > 2)"
    ),
    "sqlite": (
        "import sqlite3\nc = sqlite3.connect(OUT + '/db')\nc.execute('create table t(a)')\n"
        "c.commit()\nprint(c.execute('select count(*) from t').fetchone())"
    ),
}
