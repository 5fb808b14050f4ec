"""Data sets: the embedded digits, files of your own, published sets to fetch, and tasks on sequences."""

from vicinal.data import sequences
from vicinal.data.batching import epoch_order
from vicinal.data.catalogue import Entry, Summary, available, verify
from vicinal.data.dataset import Dataset
from vicinal.data.download import Progress, fetch
from vicinal.data.errors import DataError
from vicinal.data.loading import data_folder, load
from vicinal.data.sources import SOURCES, RemoteFile, Source
from vicinal.data.yinyang import yin_yang, yin_yang_class

__all__ = [
    "SOURCES",
    "DataError",
    "Dataset",
    "Entry",
    "Progress",
    "RemoteFile",
    "Source",
    "Summary",
    "available",
    "data_folder",
    "epoch_order",
    "fetch",
    "load",
    "sequences",
    "verify",
    "yin_yang",
    "yin_yang_class",
]
