"""Makes archives and checkpoints as somebody may who knows the format: all checksums are right."""

import hashlib
import io
import json
import struct
import zipfile

import numpy as np

HEADER = "vicinal.json"


def members_of(content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def sealed(content):
    """The archive with the digest of its own bytes as its comment."""
    return content[:-64] + hashlib.sha256(content[:-64]).hexdigest().encode()


def packed(members, compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, compress_type=compression if name != HEADER else None)
        archive.comment = b"0" * 64
    return sealed(buffer.getvalue())


def with_header(content, change):
    """The checkpoint with another header; `change` gets it and may return another one."""
    members = members_of(content)
    header = json.loads(members[HEADER])
    changed = change(header)
    members[HEADER] = json.dumps(header if changed is None else changed).encode()
    return packed(members)


def with_member(content, name, new):
    return packed(members_of(content) | {name: new})


def npy(shape, descr="<f4", data=b"", order=False):
    """An `.npy` file that says what it likes about itself."""
    text = f"{{'descr': {descr!r}, 'fortran_order': {order}, 'shape': {shape!r}, }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def as_npy(array, **options):
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def with_sizes(content, size):
    """The archive whose directory says that its members have this size."""
    changed, at = bytearray(content), content.find(b"PK\x01\x02")
    while at >= 0:
        changed[at + 20 : at + 28] = struct.pack("<II", size, size)
        at = content.find(b"PK\x01\x02", at + 4)
    return sealed(bytes(changed))
