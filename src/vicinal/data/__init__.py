"""Data sets: the embedded digits, files of your own, published sets to fetch, and tasks on sequences."""

from vicinal.data import sequences as sequences
from vicinal.data.batching import epoch_order as epoch_order
from vicinal.data.catalogue import (
    Entry as Entry,
    Summary as Summary,
    available as available,
    verify as verify,
)
from vicinal.data.dataset import Dataset as Dataset
from vicinal.data.download import Progress as Progress, fetch as fetch
from vicinal.data.errors import DataError as DataError
from vicinal.data.loading import data_folder as data_folder, load as load
from vicinal.data.sources import SOURCES as SOURCES, RemoteFile as RemoteFile, Source as Source
from vicinal.data.yinyang import yin_yang as yin_yang, yin_yang_class as yin_yang_class
