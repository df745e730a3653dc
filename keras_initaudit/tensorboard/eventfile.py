"""Event files: the framing of TensorBoard's records, both ways, and their checksum at the speed of numpy.

TensorBoard's own writer and reader take the checksum byte by byte in Python (0.12 s per MB), and its file layer
imports TensorFlow wherever that is installed (seconds). A snapshot of a deep network with its histograms is a few
hundred kB, written between two training steps; hence this module. A record is

    uint64 length | uint32 masked crc of the length | data | uint32 masked crc of the data      (little-endian)

Reference:
    RFC 3720 (2004), section 12.1 and appendix B.4: CRC-32C, polynomial 0x1EDC6F41 (reflected 0x82F63B78).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint32]

_LANE = 64
"""Bytes that one lane covers; each lane is one element of the vectors below."""
_SMALL = 1024
"""Below this many bytes the plain loop is quicker than the vectors."""


def _byte_table() -> Words:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(0x82F63B78), table >> 1).astype(np.uint32)
    return table


_TABLE = _byte_table()
_PLAIN = [int(word) for word in _TABLE]


@cache
def _zeros_table(count: int) -> Words:
    """`[4, 256]`: the state after `count` (a power of two) zero bytes, for each value of each byte of the state."""
    if count == 1:
        state = np.arange(256, dtype=np.uint32)[None, :] << (8 * np.arange(4, dtype=np.uint32)[:, None])
        first: Words = _TABLE[state & 0xFF] ^ (state >> 8)
        return first
    half = _zeros_table(count // 2)
    return _advance(half, half)


def _advance(table: Words, state: Words) -> Words:
    low: Words = table[0][state & 0xFF] ^ table[1][(state >> 8) & 0xFF]
    high: Words = table[2][(state >> 16) & 0xFF] ^ table[3][state >> 24]
    return low ^ high


def crc32c(data: bytes) -> int:
    """The CRC-32C of `data`.

    The checksum is linear over GF(2): the bytes are cut into lanes whose states are advanced together, then joined
    pairwise, each left one carried over the zeros that stand for its right neighbour.

    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    """
    if len(data) < _SMALL:
        state = 0xFFFFFFFF
        for byte in data:
            state = _PLAIN[(state ^ byte) & 0xFF] ^ (state >> 8)
        return state ^ 0xFFFFFFFF
    lanes = 1 << ((len(data) - 1) // _LANE).bit_length()
    padded = np.zeros(lanes * _LANE, np.uint8)  # zeros in front leave a state of 0 as it is
    start = len(padded) - len(data)
    padded[start:] = np.frombuffer(data, np.uint8)
    padded[start : start + 4] ^= 0xFF  # the initial state of all ones
    columns = np.ascontiguousarray(padded.reshape(lanes, _LANE).T)
    states = np.zeros(lanes, np.uint32)
    for column in columns:
        states = _TABLE[(states ^ column) & 0xFF] ^ (states >> 8)
    width = _LANE
    while len(states) > 1:
        states = _advance(_zeros_table(width), states[0::2]) ^ states[1::2]
        width *= 2
    return int(states[0]) ^ 0xFFFFFFFF


def masked(crc: int) -> int:
    """The checksum as it stands in the file: rotated and shifted, so that a checksum of checksums is not degenerate."""
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def frame(data: bytes) -> bytes:
    """`data` as one record."""
    length = struct.pack("<Q", len(data))
    return b"".join((length, struct.pack("<I", masked(crc32c(length))), data, struct.pack("<I", masked(crc32c(data)))))


def records(file: BinaryIO) -> Iterator[bytes]:
    """The records of an open event file, to its end or to where a record is cut short (it is still being written).

    Raises:
        ValueError: where a checksum does not hold; the message gives the position.
    """
    while True:
        start = file.tell()
        head = file.read(12)
        if len(head) < 12:
            return
        length = int(struct.unpack_from("<Q", head)[0])
        if struct.unpack_from("<I", head, 8)[0] != masked(crc32c(head[:8])):
            raise ValueError(f"damaged at byte {start}: the length of a record does not match its checksum")
        body = file.read(length + 4)
        if len(body) < length + 4:
            return
        data = body[:length]
        if struct.unpack_from("<I", body, length)[0] != masked(crc32c(data)):
            raise ValueError(f"damaged at byte {start}: a record does not match its checksum")
        yield data
