"""Philox4x64-10, a counter-based random generator, in array code.

Salmon, Moraes, Dror & Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3".

A block of four 64-bit integers is a function of (key, counter) alone: ten rounds of two products.
So draws need no state: any thread, any device, any step of a resumed run computes the same ones.
"""

from typing import Any

# Multipliers and key increments of the paper.
M0, M1 = 0xD2E7470EE14C6C93, 0xCA5A826395121157
W0, W1 = 0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B
LOW, WORD = 0xFFFFFFFF, 1 << 64  # half a word, and one more than a word holds


def _multiply(xp: Any, a: Any, b: int) -> tuple[Any, Any]:
    """The high and the low 64 bits of a·b: a an array of uint64, b a constant."""
    a_low, a_high, b_low, b_high = a & LOW, a >> 32, b & LOW, b >> 32
    middle = ((a_low * b_low) >> 32) + ((a_low * b_high) & LOW) + ((a_high * b_low) & LOW)
    carried = (middle >> 32) + ((a_low * b_high) >> 32) + ((a_high * b_low) >> 32)
    return a_high * b_high + carried, a * xp.uint64(b)


def philox(xp: Any, key: int, counter: int, count: int) -> Any:
    """`count` raw 64-bit integers as an array of `xp`: the definition, in array code.

    key: 128 bits, counter: 256 bits. Law: equals np.random.Philox(counter=..., key=...).random_raw
    (which counts up before its first block), as a test asserts; NumPy's backend uses that.
    """
    blocks = -(-count // 4)
    start, words = counter % WORD, [counter >> 64 * i & WORD - 1 for i in (1, 2, 3)]
    if start + blocks >= WORD:
        raise ValueError("philox: the lowest word of the counter would overflow.")
    c0 = xp.arange(blocks, dtype=xp.uint64) + xp.uint64(start + 1)
    c1, c2, c3 = (xp.full(blocks, xp.uint64(word), dtype=xp.uint64) for word in words)
    k0, k1 = key % WORD, key >> 64
    for _ in range(10):
        high0, low0 = _multiply(xp, c0, M0)
        high1, low1 = _multiply(xp, c2, M1)
        c0, c2 = high1 ^ c1 ^ xp.uint64(k0), high0 ^ c3 ^ xp.uint64(k1)
        c1, c3 = low1, low0
        k0, k1 = (k0 + W0) % WORD, (k1 + W1) % WORD
    return xp.stack([c0, c1, c2, c3], axis=1).reshape(-1)[:count]
