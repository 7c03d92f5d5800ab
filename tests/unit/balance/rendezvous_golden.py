#!/usr/bin/env python3
"""Prints the golden vectors of backend_set_test.cc.

Written against the definition, not against backend_set.cc: the score is -w / ln(h) in 50-digit
decimals, all backends are scored for each key, and the highest is taken. It shares with the C++
code the numbers that make two proxies agree: the XXH3 hash (from the same libxxhash, through
ctypes), the constants of SplitMix64, and how 52 bits of the mix become h. That the library
computes XXH3 itself is pinned by the published value for the empty input.

Needs Python 3.9 and libxxhash.so.0. Run it by hand; nothing of the build depends on it.
"""

import ctypes
from decimal import Decimal, getcontext

getcontext().prec = 50
MASK = (1 << 64) - 1

LIBRARY = ctypes.CDLL("libxxhash.so.0")
LIBRARY.XXH3_64bits.restype = ctypes.c_uint64
LIBRARY.XXH3_64bits.argtypes = [ctypes.c_char_p, ctypes.c_size_t]

POOLS = {
    "kEqual": [("chat-1", 1), ("chat-2", 1), ("chat-3", 1)],
    "kWeighted": [("a", 1), ("b", 2), ("c", 0.5), ("d", 4)],
    "kTen": [(f"ws-{i}", 1) for i in range(10)],
}
KEYS = [
    "",
    "a",
    "10.0.0.1",
    "2001:db8::1",
    "alice",
    "bob",
    "sid=7f3a90cc",
    "0123456789abcdef",
    "0123456789abcdef0",
    "a token that is longer than the sixteen bytes of the short path",
    "x" * 200,
    "x" * 300,
]


def xxh3(text):
    data = text.encode()
    return LIBRARY.XXH3_64bits(data, len(data))


def splitmix_finalizer(x):
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def score(name, weight, key):
    slice_of_unit = splitmix_finalizer(xxh3(name) ^ xxh3(key)) >> 12
    h = (Decimal(slice_of_unit) + Decimal("0.5")) / Decimal(1 << 52)
    return -Decimal(weight) / h.ln()


def main():
    assert xxh3("") == 0x2D06800538D394C2, "this library does not compute XXH3"
    for pool, backends in POOLS.items():
        for key in KEYS:
            ranked = sorted(backends, key=lambda b: score(b[0], b[1], key), reverse=True)
            names = ", ".join(f'"{name}"' for name, _ in ranked[:3])
            shown = f'"{key}"' if len(key) < 100 else f"std::string({len(key)}, 'x')"
            print(f"    {{{pool}, {shown}, {{{names}}}}},")


if __name__ == "__main__":
    main()
