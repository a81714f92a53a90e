"""System calls that the kernel refuses from now on, to this process and all it starts (seccomp, x86-64)."""

import ctypes
import errno
import os
import platform

# Where there is nothing to refuse with: no Linux, another processor, a container that does not let it.
UNABLE = 77

CALLS = {
    "write": 1,
    "close": 3,
    "poll": 7,
    "mmap": 9,
    "readv": 19,
    "clone": 56,
    "fork": 57,
    "vfork": 58,
    "kill": 62,
    "fcntl": 72,
    "openat": 257,
    "splice": 275,
    "tee": 276,
    "pipe2": 293,
    "clone3": 435,
}
ANY = None

_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _MODE_FILTER = 22, 38, 2
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF: a 32-bit word of what is looked at; jump if it is; the answer
_NUMBER, _MACHINE, _FIRST_ARGUMENT = 0, 4, 16
_X86_64 = 0xC000_003E
_ALLOW, _REFUSE = 0x7FFF_0000, 0x0005_0000


class _Instruction(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint16), ("yes", ctypes.c_uint8), ("no", ctypes.c_uint8), ("k", ctypes.c_uint32)]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_uint16), ("code", ctypes.POINTER(_Instruction))]


def refuse(*refusals):
    """Have calls fail: each is (name, errno, first argument, or ANY). Ends the process with UNABLE if it cannot."""
    if platform.machine() != "x86_64":
        os._exit(UNABLE)
    code = [(_LOAD, 0, 0, _MACHINE), (_EQUAL, 1, 0, _X86_64), (_RETURN, 0, 0, _ALLOW)]
    for name, error, argument in refusals:
        answer = [(_RETURN, 0, 0, _REFUSE | getattr(errno, error))]
        if argument is not ANY:
            answer = [(_LOAD, 0, 0, _FIRST_ARGUMENT), (_EQUAL, 0, 1, argument), *answer]
        code += [(_LOAD, 0, 0, _NUMBER), (_EQUAL, 0, len(answer), CALLS[name]), *answer]
    code.append((_RETURN, 0, 0, _ALLOW))
    program = _Program(len(code), (_Instruction * len(code))(*code))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program)):
        os._exit(UNABLE)
