import subprocess
import sys

# Imports every module of automl as on Windows: what Python lacks there is missing, but to automl's own modules alone,
# for other packages are those of this machine.
AS_ON_WINDOWS = """
import builtins, importlib, os, pkgutil, select, signal, socket, types

NO_MODULES = "crypt curses fcntl grp nis posix pty pwd readline resource spwd syslog termios tty".split()
NO_NAMES = {
    os: "WNOHANG fork geteuid getloadavg getpgid getuid killpg nice posix_fallocate register_at_fork "
        "sched_getaffinity setsid statvfs sysconf uname wait4",
    select: "epoll poll",
    signal: "ITIMER_REAL SIGALRM SIGCHLD SIGHUP SIGKILL SIGPIPE SIGSTOP SIGUSR1 alarm pthread_sigmask setitimer",
    socket: "AF_UNIX SO_REUSEPORT",
}
lesser = {}
for module, names in NO_NAMES.items():
    lesser[module.__name__] = types.ModuleType(module.__name__)
    vars(lesser[module.__name__]).update({k: v for k, v in vars(module).items() if k not in names.split()})

def import_as_on_windows(name, globals=None, locals=None, fromlist=(), level=0):
    if level == 0 and (globals or {}).get("__name__", "").partition(".")[0] == "automl":
        if name.partition(".")[0] in NO_MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}")
        if name in lesser:
            return lesser[name]
    return python_import(name, globals, locals, fromlist, level)

python_import = builtins.__import__
builtins.__import__ = import_as_on_windows

import automl
print("automl")
for module in pkgutil.walk_packages(automl.__path__, "automl.", onerror=lambda name: None):
    if module.name != "automl.__main__":
        try:
            importlib.import_module(module.name)
            print(module.name)
        except Exception as exc:
            print(f"{module.name}: {type(exc).__name__}: {exc}")
"""


def test_every_module_is_imported_where_there_is_no_posix():
    process = subprocess.run([sys.executable, "-c", AS_ON_WINDOWS], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()
    assert {"automl.cli.main", "automl.training.fit"} <= set(lines)
    assert [line for line in lines if ": " in line] == []
