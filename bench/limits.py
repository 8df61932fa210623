"""What a byte costs at least on this machine: sealing it once, and copying it through a Unix socket twice."""

from __future__ import annotations

import os
import socket
import threading
import time

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

RECORD = 64 * 1024


def seal_seconds(records: int = 4_096) -> float:
    """Seconds to seal one record of 64 KiB with AES-256-GCM, the links' cipher."""
    aead, record = AESGCM(os.urandom(32)), os.urandom(RECORD)
    began = time.perf_counter()
    for number in range(records):
        aead.encrypt(number.to_bytes(12, "big"), record, None)
    return (time.perf_counter() - began) / records


def copy_seconds(records: int = 4_096) -> float:
    """Seconds in which 64 KiB get through a Unix socket, from one thread to another."""
    here, there = socket.socketpair(socket.AF_UNIX)
    record, view = os.urandom(RECORD), memoryview(bytearray(4 * RECORD))

    def write() -> None:
        for _ in range(records):
            here.sendall(record)
        here.close()

    writer = threading.Thread(target=write)
    began = time.perf_counter()
    writer.start()
    total = 0
    while size := there.recv_into(view):
        total += size
    writer.join()
    there.close()
    return (time.perf_counter() - began) / records


def tunnel_limit() -> dict[str, float]:
    """MB/s of one sealing and two copies, one after the other, and of each alone."""
    seal, copy = seal_seconds(), copy_seconds()
    return {
        "MB/s": RECORD / (seal + 2 * copy) / 1e6,
        "AEAD MB/s": RECORD / seal / 1e6,
        "socket MB/s": RECORD / copy / 1e6,
    }
