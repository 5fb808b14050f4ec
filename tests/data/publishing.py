"""A local server that publishes small real files, faithfully or not."""

import gzip
import hashlib
import io
import struct
import tarfile
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np


def idx(array):
    """Encode an array of bytes as gzipped idx, from the format's description."""
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return gzip.compress(header + array.astype(np.uint8).tobytes(), mtime=0)


def cifar10(batches, *, leave_out=None):
    """Encode six (images [n, 32, 32, 3], labels [n]) as the binary CIFAR-10 archive, record by record."""
    buffer = io.BytesIO()
    names = [f"data_batch_{number}.bin" for number in range(1, 6)] + ["test_batch.bin"]
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, (images, labels) in zip(names, batches, strict=True):
            if name == leave_out:
                continue
            content = bytearray()
            for image, label in zip(images, labels, strict=True):
                content.append(int(label))
                for channel in range(3):
                    content += image[:, :, channel].tobytes()
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def md5(content):
    return "md5:" + hashlib.md5(content, usedforsecurity=False).hexdigest()


@dataclass
class Publisher:
    """What the server answers: whole files, or misbehaviour by path."""

    address: str = ""
    files: dict = field(default_factory=dict)
    cut: set = field(default_factory=set)
    silent: set = field(default_factory=set)
    requests: list = field(default_factory=list)


@contextmanager
def publishing():
    """Serve a `Publisher` on a free port of this machine."""
    published = Publisher()
    stop = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            published.requests.append(self.path)
            if self.path in published.silent:
                stop.wait(5)
                return
            if self.path not in published.files:
                self.send_error(404)
                return
            content = published.files[self.path]
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if self.path in published.cut else content)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    published.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield published
    finally:
        stop.set()
        server.shutdown()
        server.server_close()
        thread.join()
