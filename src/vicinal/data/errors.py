"""The error for failures outside the program: networks, servers, disks, permissions."""


class DataError(OSError):
    """A data set could not be fetched, read from the disk or written to it.

    The message is one sentence: what happened and what to do. No existing file is lost.
    """
