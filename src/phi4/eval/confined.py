"""What runs in the child process of `sandbox`: gives up rights, then runs a program. It imports nothing of phi4.

Arguments: processor seconds, bytes of memory, bytes of a file. Standard input: a line with a token, then the program.
The token is written to standard output when the program ended without an exception, and what ended it otherwise.
"""

import ctypes
import os
import resource
import sys

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
NOBODY = 65534
# What a program may not even try; a hook cannot be taken away from inside.
FORBIDDEN = (
    "socket.",
    "subprocess.",
    "ctypes.",
    "os.system",
    "os.exec",
    "os.fork",
    "os.posix_spawn",
    "os.spawn",
    "os.kill",
    "os.putenv",
    "resource.",
    "signal.",
    "syslog.",
    "pty.",
    "fcntl.",
    # Another interpreter would have no hook.
    "cpython.PyInterpreterState_New",
)
# Of these, every path that they name must lie in the working directory.
CHANGING = (
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.mkdir",
    "os.link",
    "os.symlink",
    "os.truncate",
    "os.chmod",
    "os.chown",
    "os.utime",
    "os.chflags",
    "os.setxattr",
    "os.removexattr",
    "os.chdir",
    "shutil.",
    "tempfile.",
)
# Modules that make named memory and semaphores, or open files and sockets in C, none of which a hook is told of.
UNTOLD_MODULES = ("_posixshmem", "_multiprocessing", "_sqlite3", "_dbm", "_gdbm", "_tkinter", "readline")
# Files, folders and links that a program may make or change; each file is small, but disks fill up.
MAX_CHANGES = 100
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def leave_network() -> bool:
    """Moves into a network of its own, where there is nothing; False where the system does not allow that."""
    unshare = getattr(ctypes.CDLL(None), "unshare", None)
    return unshare is not None and (unshare(CLONE_NEWNET) == 0 or unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0)


def confine(cpu_seconds: int, memory_bytes: int, file_bytes: int) -> None:
    """Limits what this process can use; none of this can be raised again."""
    has_left = leave_network()
    if os.getuid() == 0:
        # The superuser is not bound by the limit on processes.
        keep_library()
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        if not has_left:
            leave_network()
    for kind, limit in (
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_NOFILE, 32),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (limit, limit))


def keep_library() -> None:
    """Makes Python's library importable through open folders: its path may lie where only the superuser can go."""
    folders = [path for path in sys.path if os.path.isdir(path)]
    opened = {path: f"/proc/self/fd/{os.open(path, os.O_RDONLY | os.O_DIRECTORY)}" for path in folders}
    sys.path[:] = list(opened.values())
    # The longest first: one folder lies in another.
    for path in sorted(opened, key=len, reverse=True):
        for module in sys.modules.values():
            if hasattr(module, "__path__"):
                module.__path__ = [part.replace(path, opened[path]) for part in module.__path__]


def guard(folder: str) -> None:
    """Refuses what no solution of a programming problem needs, from here on."""
    inside, changes = os.path.realpath(folder), 0
    # A hook is not told of these.
    for module in (os, sys.modules["posix"]):
        for name in ("mkfifo", "mknod"):
            vars(module).pop(name, None)

    def is_inside(path: object) -> bool:
        if isinstance(path, bytes):
            path = os.fsdecode(path)
        if not isinstance(path, str):
            return isinstance(path, int)
        return os.path.commonpath([inside, os.path.realpath(path)]) == inside

    def refuse(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal changes
        if event == "import" and arguments[0] in UNTOLD_MODULES:
            # Some of the library does without them where they cannot be imported.
            raise ImportError(f"{arguments[0]} is not allowed here")
        if event.startswith(FORBIDDEN):
            raise PermissionError(f"{event} {arguments!r} is not allowed here")
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING:
            paths = arguments[:1]
        elif event.startswith(CHANGING):
            paths = tuple(path for path in arguments if isinstance(path, str | bytes))
        else:
            return
        changes += 1
        if changes > MAX_CHANGES or not all(map(is_inside, paths)):
            raise PermissionError(f"{event} of {paths!r} is not allowed here")

    sys.addaudithook(refuse)


def main() -> None:
    """Runs the program from standard input."""
    token, _, program = sys.stdin.buffer.read().decode("utf-8", "replace").partition("\n")
    report = os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    confine(*map(int, sys.argv[1:]))
    guard(os.getcwd())
    outcome = token
    try:
        # Without `__name__`, as HumanEval's own program does: what stands below `if __name__ == "__main__"` is no test.
        exec(compile(program, "answer.py", "exec"), {})
    except BaseException as error:
        outcome = type(error).__name__
    os.write(report, outcome.encode()[:100])
    os._exit(0)


if __name__ == "__main__":
    main()
