"""Data sets: the embedded digits, files and tables of your own, published sets to fetch, and tasks on sequences."""

from vicinal.data import sequences
from vicinal.data.arrays import from_arrays
from vicinal.data.batching import epoch_order
from vicinal.data.catalogue import Entry, Summary, available, verify
from vicinal.data.dataset import Dataset
from vicinal.data.download import Progress, fetch
from vicinal.data.errors import DataError
from vicinal.data.folders import from_folder
from vicinal.data.hugging_face import from_hugging_face
from vicinal.data.loading import data_folder, load
from vicinal.data.sources import SOURCES, RemoteFile, Source
from vicinal.data.splitting import split_rows
from vicinal.data.streams import Batches, batches
from vicinal.data.tables import from_frame
from vicinal.data.yinyang import yin_yang, yin_yang_class

__all__ = [
    "SOURCES",
    "Batches",
    "DataError",
    "Dataset",
    "Entry",
    "Progress",
    "RemoteFile",
    "Source",
    "Summary",
    "available",
    "batches",
    "data_folder",
    "epoch_order",
    "fetch",
    "from_arrays",
    "from_folder",
    "from_frame",
    "from_hugging_face",
    "load",
    "sequences",
    "split_rows",
    "verify",
    "yin_yang",
    "yin_yang_class",
]
