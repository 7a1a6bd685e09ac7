"""A program for guests that keeps a CPU to itself, so that nothing else in the guest runs, its kernel threads
least of all; its guest then neither reports nor answers, while QEMU and the CPUs work.

Built here byte by byte: the guests have no compiler and their busybox no chrt.
"""

from __future__ import annotations

import base64
import struct

from vmpack.lab.lab import LabGuest

_LOADED_AT = 0x400000
_HEADER_BYTES = 64 + 56
_FIRST_REAL_TIME_PRIORITY = 50


def _code(seconds: int) -> bytes:
    """x86-64: become a real-time process (SCHED_FIFO), then look at the clock until it is time to end."""
    return b"".join(
        (
            b"\x48\x83\xec\x20",  # sub rsp, 32
            b"\xc7\x04\x24" + struct.pack("<I", _FIRST_REAL_TIME_PRIORITY),  # mov dword [rsp], priority
            b"\xb8\x90\x00\x00\x00",  # mov eax, 144 (sched_setscheduler)
            b"\x31\xff",  # xor edi, edi (myself)
            b"\xbe\x01\x00\x00\x00",  # mov esi, 1 (SCHED_FIFO)
            b"\x48\x89\xe2",  # mov rdx, rsp
            b"\x0f\x05",  # syscall
            b"\x45\x31\xf6",  # xor r14d, r14d (no deadline yet)
            # look:
            b"\xb8\xe4\x00\x00\x00",  # mov eax, 228 (clock_gettime)
            b"\xbf\x01\x00\x00\x00",  # mov edi, 1 (CLOCK_MONOTONIC)
            b"\x48\x89\xe6",  # mov rsi, rsp
            b"\x0f\x05",  # syscall
            b"\x48\x8b\x04\x24",  # mov rax, [rsp] (seconds)
            b"\x4d\x85\xf6",  # test r14, r14
            b"\x75\x07",  # jnz compare
            b"\x4c\x8d\xb0" + struct.pack("<I", seconds),  # lea r14, [rax + seconds]
            # compare:
            b"\x4c\x39\xf0",  # cmp rax, r14
            b"\x7c\xdc",  # jl look
            b"\xb8\x3c\x00\x00\x00",  # mov eax, 60 (exit)
            b"\x31\xff",  # xor edi, edi
            b"\x0f\x05",  # syscall
        )
    )


def _executable(seconds: int) -> bytes:
    """The smallest ELF file around the code."""
    code = _code(seconds)
    size = _HEADER_BYTES + len(code)
    identity = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, _LOADED_AT + _HEADER_BYTES, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _LOADED_AT, _LOADED_AT, size, size, 0x1000)
    return identity + header + segment + code


def starve(guest: LabGuest, cpus: int, seconds: int) -> None:
    """Take all CPUs of the guest from everybody else for so long; returns at once."""
    program = base64.b64encode(_executable(seconds)).decode()
    start = "; ".join(f"(sleep 1; exec taskset -c {cpu} /tmp/starve) &" for cpu in range(cpus))
    script = (
        (
            f"echo {program} | base64 -d > /tmp/starve && chmod +x /tmp/starve && "
            f"echo -1 > /proc/sys/kernel/sched_rt_runtime_us && {{ {start}; }} > /dev/null 2>&1 < /dev/null"
        )
        .replace("&; (", "& (")
        .replace("&; }", "& }")
    )
    answer = guest.control.run(["sh", "-c", script])
    assert answer.exit_code == 0, answer
