"""Edits of valid files: of their bytes, and of what the bytes mean, with all checksums made right again."""

import ast
import copy
import io
import json
import random
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
from forging import HEADER, members_of, npy, packed, sealed

Edit = Callable[[random.Random, bytes], bytes]
STRANGE: list[Any] = [
    None,
    True,
    False,
    0,
    1,
    -1,
    2,
    3.5,
    -0.0,
    1e308,
    2**31,
    2**63,
    -(2**63),
    10**30,
    10**320,
    "",
    "x",
    "0",
]
STRANGE += ["NaN", "é", "\ud800", "a\0b", "x" * 5000, [], [0], [[]], [True], ["x"], {}, {"x": 1}, {"step": 1}]
STRANGE += [float("nan"), float("inf"), "../../x", "/etc/passwd", "__import__('os').system('true')", "0.1", "il"]
SHAPES: list[Any] = [
    (),
    (0,),
    (1,),
    (-1,),
    (2, 3),
    (3, 2),
    (6,),
    (10**12,),
    (2**40, 2**40),
    (2**63,),
    (1,) * 40,
    (0, 10**12),
    "x",
    [2],
]
DTYPES: list[Any] = [
    "<f4",
    ">f4",
    "<f8",
    "<i4",
    "|u1",
    "|b1",
    "|O",
    "<U0",
    "<U3",
    "|S4",
    "|V4",
    "<M8[D]",
    "<c8",
    "nope",
    [("a", "<f4")],
]
CELLS = [b"", b"x", b"nan", b"inf", b"1e999", b'"', b'"a,b"', b"-1", b"9" * 400, b"\xff", b"a\0b", b"True"]
METHODS = [zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]


def bytewise(chance: random.Random, content: bytes) -> bytes:
    """Flips bits, cuts, repeats, inserts or moves pieces."""
    changed = bytearray(content)
    for _ in range(chance.choice([1, 1, 1, 2, 4, 16])):
        at = chance.randrange(len(changed) + 1)
        to = min(len(changed), at + chance.choice([1, 2, 4, 16, 256]))
        kind = chance.randrange(7)
        if kind < 2 and at < len(changed):
            changed[at] ^= 1 << chance.randrange(8)
        elif kind == 2 and at < len(changed):
            changed[at] = chance.choice(b'\x00\xff\x7f\x80\n",[]{}09-eE. ')
        elif kind == 3:
            del changed[at : chance.choice([to, len(changed)])]
        elif kind == 4:
            changed[at:at] = chance.choice([changed[at:to], b"\x00" * 8, chance.randbytes(4), b"[" * 200])
        elif kind == 5:
            source = chance.randrange(len(changed) + 1)
            changed[at:to] = changed[source : source + to - at]
        elif to - at >= 4:
            changed[at : at + 4] = struct.pack("<I", chance.choice([0, 1, 2**31, 2**32 - 1, 10**9]))
    return bytes(changed)


def json_value(chance: random.Random, value: Any) -> Any:
    """Another value in one or a few places: of another type, missing, new, renamed, twice or deeply nested."""
    value = copy.deepcopy(value)
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        places = list(_places(value))
        if not places:
            return chance.choice(STRANGE)
        inside, key = chance.choice(places)
        kind = chance.randrange(8)
        if kind < 4:
            inside[key] = copy.deepcopy(chance.choice(STRANGE))
        elif kind == 4:
            del inside[key]
        elif kind == 5 and isinstance(inside, dict):
            inside[chance.choice(["x", f"{key}s", str(key)[:-1], "step", ""])] = inside[key]
        elif kind == 5:
            inside.insert(key, inside[key])
        elif kind == 6:
            for _ in range(chance.choice([1, 2, 150])):
                inside[key] = [inside[key]] if chance.random() < 0.5 else {"x": inside[key]}
        elif isinstance(inside[key], int | float):
            inside[key] = inside[key] * chance.choice([-1, 2]) + chance.choice([0, 1, -1])
    return value


def _places(value: Any) -> Any:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from _places(inner)


def _text(value: Any) -> bytes:
    return json.dumps(value).encode()


def json_text(chance: random.Random, content: bytes) -> bytes:
    """JSON with other values, or other bytes, or brackets without end."""
    kind = chance.randrange(12)
    if kind == 0:
        return chance.choice([b"[", b'{"x":']) * chance.choice([500, 10_000])
    return bytewise(chance, content) if kind < 3 else _text(json_value(chance, json.loads(content)))


def json_lines(chance: random.Random, content: bytes) -> bytes:
    """Lines missing, doubled, swapped, cut, or with other values."""
    lines = content.splitlines(keepends=True)
    at, other, kind = chance.randrange(len(lines)), chance.randrange(len(lines)), chance.randrange(10)
    if kind < 4:
        lines[at] = json_text(chance, lines[at]) + b"\n"
    elif kind == 4:
        del lines[at]
    elif kind == 5:
        lines.insert(other, lines[at])
    elif kind == 6:
        lines[at], lines[other] = lines[other], lines[at]
    elif kind == 7:
        lines = lines[:at]
    else:
        return bytewise(chance, content)
    return b"".join(lines)


def npy_file(chance: random.Random, content: bytes) -> bytes:
    """An array with another header, or other bytes."""
    if chance.random() < 0.3 or content[:6] != b"\x93NUMPY":
        return bytewise(chance, content)
    (length,) = struct.unpack("<H", content[8:10])
    header, data = ast.literal_eval(content[10 : 10 + length].decode()), content[10 + length :]
    shape = chance.choice(SHAPES) if chance.random() < 0.6 else header["shape"]
    descr = chance.choice(DTYPES) if chance.random() < 0.5 else header["descr"]
    return npy(shape, descr, chance.choice([data, data[:-1], data * 2, b""]), chance.random() < 0.2)


def zipped(chance: random.Random, content: bytes) -> bytes:
    """An archive with a member changed, missing, new, renamed or compressed; or another directory."""
    members, kind = members_of(content), chance.randrange(10)
    name = chance.choice(list(members))
    if kind < 5:
        own = npy_file if name.endswith(".npy") else json_text
        members[name] = own(chance, members[name])
    elif kind == 5:
        del members[name]
    elif kind == 6:
        members[chance.choice(["x.npy", "../x", "/x", "0", "9.npy", "x_test.npy", f"{name}.npy"])] = members[name]
    elif kind == 7:
        return directory(chance, content)
    elif kind == 8:
        buffer = io.BytesIO()
        np.save(buffer, np.array([print, None], object), allow_pickle=True)
        members[name] = buffer.getvalue()
    return packed(members, chance.choice(METHODS))


def directory(chance: random.Random, content: bytes) -> bytes:
    """An archive whose directory has other bytes."""
    at = content.find(b"PK\x01\x02")
    changed = bytearray(content)
    for _ in range(chance.choice([1, 1, 3])):
        place = chance.randrange(at + 4, len(content) - 4)
        changed[place : place + 4] = chance.choice(
            [chance.randbytes(4), bytes(4), b"\xff" * 4, struct.pack("<I", 10**9)]
        )
    return bytes(changed)


def forged(chance: random.Random, content: bytes) -> bytes:
    """A checkpoint with other contents and a right digest."""
    members = members_of(content)
    kind = chance.randrange(10)
    if kind < 5:
        header = json.loads(members[HEADER])
        part = chance.choice(["leaves", "leaves", "metadata", ""])
        changed = json_value(chance, header[part] if part else header)
        members[HEADER] = _text(header | {part: changed} if part else changed)
        return packed(members)
    edited = bytewise(chance, content) if kind < 7 else zipped(chance, content)
    return sealed(edited) if len(edited) > 64 else edited


def table(chance: random.Random, content: bytes) -> bytes:
    """A text with other cells, rows or bytes."""
    if chance.random() < 0.4:
        return bytewise(chance, content)
    rows = [line.split(b",") for line in content.splitlines()]
    for _ in range(chance.choice([1, 1, 3])):
        row = chance.choice(rows)
        new = chance.choice(
            [b"", b"x", b"nan", b"inf", b"1e999", b'"', b'"a,b"', b"-1", b"9" * 400, b"\xff", b"a\0b", b"True"]
        )
        row[chance.randrange(len(row))] = new
        if chance.random() < 0.3:
            row.append(new)
    return b"\n".join(b",".join(row) for row in rows)


def lengthened(chance: random.Random, content: bytes) -> bytes:
    """A safetensors file with another header."""
    (length,) = struct.unpack("<Q", content[:8])
    if chance.random() < 0.4:
        return bytewise(chance, content)
    header = _text(json_value(chance, json.loads(content[8 : 8 + length])))
    size = len(header) if chance.random() < 0.9 else chance.choice([0, 2**63, 10**12])
    return struct.pack("<Q", size) + header + content[8 + length :]
