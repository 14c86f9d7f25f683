"""How commands end: bad input in one line with exit code 2, a stop with a shell's code, a bug with its traceback."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import typer

from vggrepro.errors import InputError

PLAIN_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR}
PLAIN_ERRNOS |= {errno.EEXIST, errno.ENAMETOOLONG}

_stopped: list[int] = []  # a training that was stopped has said so itself


@contextmanager
def stop_exit() -> Iterator[None]:
    """A training stopped by a signal, which has said how to resume, ends with 128 + the signal's number."""
    from vggrepro.system.interrupt import Stopped

    try:
        yield
    except Stopped as stopped:
        _stopped.append(stopped.signal)
        raise typer.Exit(128 + stopped.signal) from None


def leave_with(app: typer.Typer) -> NoReturn:
    """Runs the command line and leaves the process with its exit code.

    InputError and the operating system's refusals become one line and exit code 2.
    A stop by a signal ends with 128 + its number, as a shell expects; anything unexpected keeps its traceback.
    """
    if "" in sys.argv[1:]:
        _leave("an argument is empty (perhaps an unset shell variable); give it a value")
    code: Any = 0
    try:
        code = app(standalone_mode=False)
        if code == 128 + signal.SIGINT and not _stopped:
            _leave("interrupted; run the same command again, finished work is kept", code)
    except InputError as error:
        _leave(str(error))
    except KeyboardInterrupt:
        _leave("interrupted; run the same command again, finished work is kept", 128 + signal.SIGINT)
    except OSError as error:
        if error.errno not in PLAIN_ERRNOS:
            raise
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            advice = "free space and run the same command again: finished work is kept"
        else:
            advice = "give a path that can be written, or change its permissions"
        _leave(f"{error.filename or 'writing'}: {error.strerror}; {advice}")
    except Exception as error:
        if explanation := _explained(error):
            _leave(explanation)
        if not hasattr(error, "format_message") or not hasattr(error, "exit_code"):
            raise  # a bug: keeps its traceback
        if "NoArgs" in type(error).__name__:
            error.show()  # type: ignore[attr-defined]
            sys.exit(2)
        message = error.format_message().replace("Value error, ", "", 1).removesuffix(".")  # of newer typers
        _leave(f"{message} (see --help)")  # a wrong option or argument
    finally:
        joined = False
        if "torch" in sys.modules:
            from vggrepro.system import processes

            joined = processes.leave_processes()
    code = code if isinstance(code, int) else 0
    if joined:
        # A process that was done was seen to abort in the libraries' last clean-up ("terminate called without an active
        # exception"), which torchrun takes for a failure of the work.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _explained(error: Exception) -> str | None:
    """What an error of the libraries means and what to do; None for a bug."""
    reason = str(getattr(error, "inner_exception", error)).partition("\n")[0]  # torch.compile wraps others' errors
    lost = uncompiled = False
    short = isinstance(error, MemoryError)
    if "torch" in sys.modules:
        from vggrepro.system import devices, processes

        lost, short = processes.is_lost_process(error), devices.is_out_of_memory(error)
        uncompiled = devices.is_not_compiled(error)
    if lost:
        return (
            f"no connection to another process, which says why or was killed ({reason}); run the same command again: "
            "finished work is kept (torchrun --max-restarts does so by itself)"
        )
    if short:
        return (
            f"memory fell short ({reason or 'of this machine'}); end other programs that use it, or give fewer "
            "--workers or a smaller --micro-batch; finished work is kept"
        )
    if uncompiled:
        return f"--compile: the step cannot be compiled here ({reason}); leave out --compile"
    return None


def _leave(message: str, code: int = 2) -> NoReturn:
    line = " ".join(part.strip() for part in message.splitlines())  # blanks within a path stay
    print(f"vggrepro: {line}", file=sys.stderr)
    sys.exit(code)
