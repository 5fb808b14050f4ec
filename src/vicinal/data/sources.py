"""Published data sets: addresses, checksums and credits."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from vicinal.data.formats import Parser, parse_cifar10, parse_idx


@dataclass(frozen=True)
class RemoteFile:
    """One file to download.

    Args:
        urls: Where it is published; they are tried in this order.
        checksum: Its hash as `algorithm:hexadecimal`, for instance `md5:...` or `sha256:...`.
    """

    urls: tuple[str, ...]
    checksum: str


@dataclass(frozen=True)
class Source:
    """A published data set.

    Args:
        files: The files to download.
        parse: Turns the downloaded files, in the order of `files`, into the four arrays.
        train: How many training examples it has.
        test: How many test examples it has.
        shape: Shape of one input.
        classes: How many classes it has.
        credit: Whom to name when results made with it are published.
    """

    files: tuple[RemoteFile, ...]
    parse: Parser
    train: int
    test: int
    shape: tuple[int, ...]
    classes: int
    credit: str


def _idx_files(mirrors: tuple[str, ...], checksums: tuple[str, str, str, str]) -> tuple[RemoteFile, ...]:
    names = (
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    )
    return tuple(
        RemoteFile(tuple(f"{mirror}{name}.gz" for mirror in mirrors), f"md5:{checksum}")
        for name, checksum in zip(names, checksums, strict=True)
    )


_MNIST = Source(
    files=_idx_files(
        (
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        (
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "d53e105ee54ea40749a09fcbcd1e9432",
            "9fb629c4189551a2d022fa330f9573f3",
            "ec29112dd5afa0611ce80d1b7f02629c",
        ),
    ),
    parse=parse_idx,
    train=60000,
    test=10000,
    shape=(28, 28),
    classes=10,
    credit="MNIST: Y. LeCun, C. Cortes and C. J. C. Burges, The MNIST database of handwritten digits, 1998",
)

_FASHION_MNIST = Source(
    files=_idx_files(
        (
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ),
        (
            "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "25c81989df183df01b3e8a0aad5dffbe",
            "bef4ecab320f06d8554ea6380940ec79",
            "bb300cfdad3c16e7a12a480ee83cd310",
        ),
    ),
    parse=parse_idx,
    train=60000,
    test=10000,
    shape=(28, 28),
    classes=10,
    credit=(
        "Fashion-MNIST: H. Xiao, K. Rasul and R. Vollgraf, Fashion-MNIST: a novel image dataset for "
        "benchmarking machine learning algorithms, arXiv:1708.07747, 2017; MIT licence, Zalando SE"
    ),
)

_CIFAR10 = Source(
    files=(
        RemoteFile(
            (
                "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
                "https://cave.cs.toronto.edu/kriz/cifar-10-binary.tar.gz",
            ),
            "md5:c32a1d4ab5d03f1284b67883e8d87530",
        ),
    ),
    parse=parse_cifar10,
    train=50000,
    test=10000,
    shape=(32, 32, 3),
    classes=10,
    credit=(
        "CIFAR-10: A. Krizhevsky, Learning multiple layers of features from tiny images, technical report, "
        "University of Toronto, 2009"
    ),
)

SOURCES: Mapping[str, Source] = MappingProxyType(
    {"mnist": _MNIST, "fashion_mnist": _FASHION_MNIST, "cifar10": _CIFAR10}
)
"""The data sets that `fetch` knows, by name."""
