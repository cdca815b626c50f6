"""Decoding in a process of its own, which can do nothing but decode one file.

A nursery process imports numpy and soundfile once; each recording is decoded by a fork of it, which takes some
milliseconds. The fork holds two descriptors, the recording and a pipe, and can open no other: no file, no socket. Its
memory, processor time and life are limited, it may write no file and start no process, as root it becomes nobody, and
where the system permits it has no network device. Whatever it answers is checked again on this side.

Needs a POSIX system; elsewhere recordings are decoded in this process, with the same limits on what they may be.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from audiolm import errors
from audiolm.audio.limits import LIMITS
from audiolm.errors import AudioError, AudioFormatError, AudioLimitError

AVAILABLE = hasattr(os, "fork") and hasattr(socket, "send_fds")
_ROOT = Path(__file__).resolve().parents[2]
_START = (
    "import sys; sys.path.insert(0, sys.argv[1]); from audiolm.audio.isolation import serve; serve(int(sys.argv[2]))"
)
_HEAD = struct.Struct("<cI")
_RATE, _BLOCK, _ERROR, _END = b"R", b"B", b"E", b"Z"
_MAX_MESSAGE_BYTES = 2**20
_START_S = 30.0
_NOBODY = 65534
_NEW_USER, _NEW_NET = 0x10000000, 0x40000000  # <sched.h>
_PARENT_DEATH_SIGNAL, _DUMPABLE, _NO_NEW_PRIVILEGES = 1, 4, 38  # <sys/prctl.h>


def decode_apart(descriptor: int) -> tuple[int, Iterator[np.ndarray]]:
    """`decoding.decode` of the file, elsewhere. Closing the iterator ends the decoding.

    Raises as it does; AudioLimitError also where decoding took too long, or ended without an answer.
    """
    reader, writer = os.pipe()
    _widen(writer)
    try:
        _NURSERY.begin(descriptor, writer)
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    answers = _answers(reader)
    kind, content = next(answers, (_END, bytearray()))
    rate_hz = int.from_bytes(content, "little")
    if kind != _RATE or not LIMITS.min_rate_hz <= rate_hz <= LIMITS.max_rate_hz:
        answers.close()
        raise AudioFormatError("the decoder's answer makes no sense")
    return rate_hz, _blocks(answers, rate_hz)


def _widen(pipe: int) -> None:
    """Room for a block and more: else both processes wait for each other a dozen times a block."""
    import fcntl

    with contextlib.suppress(AttributeError, OSError):
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _MAX_MESSAGE_BYTES)


def _blocks(answers: Iterator[tuple[bytes, bytearray]], rate_hz: int) -> Iterator[np.ndarray]:
    """Blocks as they come. They were checked where they were decoded, which hostile input may have taken over."""
    room = min(LIMITS.max_duration_s * rate_hz, LIMITS.max_values)
    with contextlib.closing(answers):
        for kind, content in answers:
            block = np.frombuffer(content[: len(content) // 4 * 4], "<f4")
            room -= len(block)
            if kind != _BLOCK or room < 0 or not (np.abs(block) <= LIMITS.max_magnitude).all():
                raise AudioFormatError("the decoder's answer makes no sense")
            yield block


def _answers(reader: int) -> Iterator[tuple[bytes, bytearray]]:
    """The messages of one decoding up to its end, whose error is raised."""
    deadline = time.monotonic() + LIMITS.max_decoding_s
    try:
        while True:
            kind, size = _HEAD.unpack(_read(reader, _HEAD.size, deadline))
            if size > _MAX_MESSAGE_BYTES:
                raise AudioFormatError("the decoder's answer makes no sense")
            content = _read(reader, size, deadline)
            if kind == _END:
                return
            if kind == _ERROR:
                raise _error(content)
            yield kind, content
    finally:
        os.close(reader)


def _read(reader: int, size: int, deadline: float) -> bytearray:
    data, waiting = bytearray(), select.poll()  # select() itself knows descriptors below 1024 alone
    waiting.register(reader, select.POLLIN)
    while len(data) < size:
        if not waiting.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise AudioLimitError(f"decoding takes longer than the {LIMITS.max_decoding_s:g} s allowed")
        piece = os.read(reader, size - len(data))
        if not piece:
            limits = f"{LIMITS.max_decoding_cpu_s} s of computing and {LIMITS.max_decoding_bytes >> 20} MiB"
            raise AudioLimitError(f"decoding failed, or took more than the {limits} allowed")
        data += piece
    return data


def _error(content: bytearray) -> AudioError:
    name, _, message = content.decode("utf-8", "replace").partition(" ")
    kind = getattr(errors, name, None)
    if not (isinstance(kind, type) and issubclass(kind, AudioError)):
        return AudioFormatError("the decoder's answer makes no sense")
    return kind(message[:1000])


class _Nursery:
    """The process that forks; started when first needed, and again when it is gone. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner = 0
        self._process: subprocess.Popen | None = None
        self._control: socket.socket | None = None

    def begin(self, source: int, writer: int) -> None:
        """Has `source` decoded into `writer`. Raises AudioFormatError where no process can be started."""
        for _ in range(2):
            try:
                socket.send_fds(self._connected(), [b"+"], [source, writer])
                return
            except OSError:
                self._forget()
        raise AudioFormatError("the decoder cannot be started on this machine")

    def _connected(self) -> socket.socket:
        with self._lock:
            if self._control is None or self._owner != os.getpid():  # a fork of this process starts one of its own
                ours, theirs = socket.socketpair()
                with theirs:
                    arguments = [sys.executable, "-P", "-c", _START, str(_ROOT), str(theirs.fileno())]
                    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
                    self._process = subprocess.Popen(
                        arguments,
                        env=environment,
                        pass_fds=[theirs.fileno()],
                        stdin=subprocess.DEVNULL,
                        start_new_session=True,  # Ctrl-C is for the application, which may finish what is running
                    )
                ours.settimeout(_START_S)
                if not ours.recv(1):
                    raise OSError("the decoder ended at once")
                ours.settimeout(None)
                self._control, self._owner = ours, os.getpid()
            return self._control

    def _forget(self) -> None:
        with self._lock:
            if self._control is not None:
                self._control.close()
            if self._process is not None and self._owner == os.getpid():
                self._process.kill()
                self._process.wait()
            self._control = self._process = None


_NURSERY = _Nursery()


def prepare() -> None:
    """Starts the nursery now, which the first recording would wait for otherwise. Raises AudioFormatError."""
    if AVAILABLE:
        with open(os.devnull, "rb") as nothing, open(os.devnull, "wb") as nowhere:
            _NURSERY.begin(nothing.fileno(), nowhere.fileno())


# the other side


def serve(control: int) -> None:
    """The nursery: forks for every pair of descriptors that comes, until the other end closes."""
    from audiolm.audio import decoding  # soundfile, which this side alone needs

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children leave no zombies
    _leave_the_network()
    with socket.socket(fileno=control) as line:
        line.sendall(b".")  # ready
        while True:
            message, descriptors, _, _ = socket.recv_fds(line, 1, 2)
            if not message:
                return
            if len(descriptors) == 2 and os.fork() == 0:
                line.close()
                _answer(decoding, *descriptors)
            for descriptor in descriptors:
                os.close(descriptor)


def _answer(decoding, source: int, writer: int) -> None:
    """The life of a fork. Never returns."""
    try:
        _confine()
        try:
            rate_hz, blocks = decoding.decode(source)
            _send(writer, _RATE, rate_hz.to_bytes(4, "little"))
            for block in blocks:
                _send(writer, _BLOCK, block.astype("<f4").tobytes())
        except AudioError as error:
            _send(writer, _ERROR, f"{type(error).__name__} {error}".encode()[:4096])
        except MemoryError:
            limit = f"decoding takes more than the {LIMITS.max_decoding_bytes >> 20} MiB allowed"
            _send(writer, _ERROR, f"{AudioLimitError.__name__} {limit}".encode())
        else:
            _send(writer, _END, b"")
    finally:
        os._exit(0)


def _send(writer: int, kind: bytes, content: bytes) -> None:
    left = memoryview(_HEAD.pack(kind, len(content)) + content)
    while left:
        left = left[os.write(writer, left) :]


def _confine() -> None:
    """Gives up what decoding does not need; what this system does not know of is left as it is."""
    import resource

    with contextlib.suppress(OSError):
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(_NOBODY)
            os.setuid(_NOBODY)
    with contextlib.suppress(AttributeError, OSError):
        libc = ctypes.CDLL(None)
        for option, value in ((_PARENT_DEATH_SIGNAL, signal.SIGKILL), (_DUMPABLE, 0), (_NO_NEW_PRIVILEGES, 1)):
            libc.prctl(option, value, 0, 0, 0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, LIMITS.max_decoding_s)
    limits = {
        resource.RLIMIT_CPU: LIMITS.max_decoding_cpu_s,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_NOFILE: 0,  # those that are open stay open
    }
    with contextlib.suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limits[resource.RLIMIT_AS] = pages * resource.getpagesize() + LIMITS.max_decoding_bytes
    for limit, value in limits.items():
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(limit, (value, value))


def _leave_the_network() -> None:
    """Into a network namespace without devices, where the kernel lets this user make one."""
    with contextlib.suppress(AttributeError, OSError):
        libc = ctypes.CDLL(None)
        if os.geteuid() != 0 or libc.unshare(_NEW_NET) != 0:
            libc.unshare(_NEW_USER | _NEW_NET)
