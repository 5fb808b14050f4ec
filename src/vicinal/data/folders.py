"""A data set from a folder of images, one folder for each class."""

import os
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from vicinal._counted import counted
from vicinal._memory import free_host_bytes
from vicinal._optional import optional
from vicinal.data.arrays import from_arrays
from vicinal.data.dataset import Dataset

_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
_READ, _UNREAD = ("train", "test"), ("val", "valid", "validation", "training", "testing")
_MODES = {"1": "L", "L": "L", "RGB": "RGB", "P": "RGB", "CMYK": "RGB", "YCbCr": "RGB"}  # what becomes of each


def from_folder(
    path: str | os.PathLike[str],
    *,
    test_share: float | None = None,
    image_size: tuple[int, int] | None = None,
    name: str | None = None,
    credit: str | None = None,
) -> Dataset:
    """Reads images from `folder/cat/1.png, folder/dog/1.png, ...`, the folders naming the classes.

    A folder `train` with such folders in it, and one called `test`, say what is for testing, in capitals or not; a
    folder `val` beside them is not read, and a warning says so. Images are turned as their camera says. Grey ones
    become `[height, width]`, colour images `[height, width, 3]`, bytes divided by 255; all must have the same size and
    the same colours.

    Args:
        path: The folder.
        test_share: Which share of each class is for testing, if there is no folder `test`; by default 0.2.
        image_size: Height and width, in pixels, that images are resized to.
        name: A short name; by default the folder's.
        credit: Whom to name.

    Returns:
        The data set, images in the order of their classes and file names. Its `class_names` are the folders'.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It has no folders with images, or images differ in size or colours, or one cannot be read.
        ImportError: Pillow is not installed.

    Example:
        ```python
        pets = vc.data.from_folder("pets", image_size=(32, 32))  # pets/cat/*.jpg, pets/dog/*.jpg
        pets.class_names  # ('cat', 'dog')
        ```
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"expected a folder of images at {folder}, found none; check the path.")
    size = None if image_size is None else _size(image_size)
    name = folder.resolve().name if name is None else name
    credit = f"{folder.name}: images of the user's own" if credit is None else credit
    parts = _parts(folder)
    if len(parts) == 1 and any((folder / parts[0].name / found).is_dir() for found in os.listdir(parts[0])):
        raise ValueError(f"{folder}: expected the folders train and test, got only {parts[0].name}; add the other.")
    if len(parts) < 2:
        images, labels = _read([folder], size)
        return from_arrays(images[0], labels[0], test_share=test_share, name=name, credit=credit, origin=str(folder))
    unread = [place.name for place in folder.iterdir() if place.is_dir() and place.name.lower() in _UNREAD]
    if unread:
        warnings.warn(f"{folder}: {' and '.join(sorted(unread))} beside train and test is not read", stacklevel=2)
    if test_share is not None:
        raise ValueError(f"{folder}: expected no test share where a folder test says what is for testing, got one")
    (x, x_test), (y, y_test) = _read(parts, size)
    return from_arrays(x, y, x_test, y_test, name=name, credit=credit, origin=str(folder))


def _parts(folder: Path) -> list[Path]:
    """The folders `train` and `test`, as far as there are any, however their names are capitalised."""
    found = []
    for part in _READ:
        places = [place for place in sorted(folder.iterdir()) if place.is_dir() and place.name.lower() == part]
        if len(places) > 1:
            raise ValueError(f"{folder}: expected one folder {part}, got {' and '.join(p.name for p in places)}")
        found += places
    return found


def _read(folders: list[Path], size: tuple[int, int] | None) -> tuple[list[UInt8[np.ndarray, "..."]], list[np.ndarray]]:
    """Images and the names of their classes, for each folder."""
    files = [_files(folder) for folder in folders]
    whole = folders[0].parent if len(folders) > 1 else folders[0]
    _check_links(whole, files)
    _check_room(whole, files, size)
    read = [[_image(file, size) for _, file in found] for found in files]
    shapes = Counter(image.shape for images in read for image in images)
    if len(shapes) > 1:
        (most, _), (other, _), *_ = shapes.most_common()
        strange = next(
            file
            for found, images in zip(files, read, strict=True)
            for (_, file), image in zip(found, images, strict=True)
            if image.shape == other
        )
        raise ValueError(
            f"{whole}: expected images of one size and mode, got "
            f"{_shown(most)} and {_shown(other)} ({strange.name}); "
            + (
                "give image_size=(height, width) (--image-size HEIGHT WIDTH)."
                if most[:2] != other[:2]
                else "convert them all to grey or all to colour."
            )
        )
    return [np.stack(images) for images in read], [np.array([label for label, _ in found]) for found in files]


def _check_links(folder: Path, files: list[list[tuple[str, Path]]]) -> None:
    """Raises a ValueError if something in a folder is a link to what is not in it, or no file."""
    root = folder.resolve()
    for file in (file for found in files for _, file in found):
        if not file.is_file():  # a link in a circle is none either
            raise ValueError(f"expected an image at {file}, got no regular file; remove it.")
        if not file.resolve().is_relative_to(root):
            raise ValueError(f"{folder}: expected images in this folder, got the link {file} out of it; copy it.")


def _check_room(folder: Path, files: list[list[tuple[str, Path]]], size: tuple[int, int] | None) -> None:
    """Raises a ValueError if images of the sizes that they announce need more memory than is free."""
    places = [file for found in files for _, file in found]
    sizes = [_opened(file, lambda image: image.size[::-1]) if size is None else size for file in places]
    needed, free = sum(3 * height * width for height, width in sizes), free_host_bytes()
    if needed > free:
        (height, width), file = max(zip(sizes, places, strict=True), key=lambda one: one[0][0] * one[0][1])
        raise ValueError(
            f"{folder}: expected images that fit into {free} bytes of memory, got {counted(len(places), 'image')} of "
            f"up to {height}x{width} ({file.name}); give image_size=(height, width) (--image-size HEIGHT WIDTH)."
        )


def _files(folder: Path) -> list[tuple[str, Path]]:
    """The images of a folder's folders, each with the name of its class."""
    classes = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    sets = [place.name for place in classes if place.name.lower() in (*_READ, *_UNREAD)]
    if sets:
        raise ValueError(
            f"{folder}: expected a folder of images for each class, got {', '.join(sets)}, which name sets of "
            "examples; name these train and test, with a folder for each class in both, or rename a class of this name."
        )
    found = [
        (place.name, file)
        for place in classes
        for file in sorted(place.rglob("*"))
        if file.suffix.lower() in _ENDINGS and not file.name.startswith(".")
    ]
    empty = [place.name for place in classes if place.name not in {label for label, _ in found}]
    if len(classes) < 2 or empty:
        got = f"none in {', '.join(empty)}" if empty else f"{counted(len(classes), 'folder')}"
        raise ValueError(
            f"{folder}: expected a folder of images for each class, at least two ({', '.join(_ENDINGS[:3])}, ...), "
            f"got {got}."
        )
    return found


def _image(file: Path, size: tuple[int, int] | None) -> UInt8[np.ndarray, "height width ..."]:
    return _opened(file, lambda image: _pixels(image, size))


def _pixels(image: Any, size: tuple[int, int] | None) -> UInt8[np.ndarray, "height width ..."]:
    from PIL import Image as image_library, ImageOps

    image = ImageOps.exif_transpose(image)  # cameras store the pixels unrotated, and the rotation beside them
    mode = "L" if image.mode == "P" and _grey(image) else _MODES[image.mode]
    image = image.convert(mode)
    if size is not None:
        image = image.resize((size[1], size[0]), image_library.Resampling.BILINEAR)
    return np.asarray(image)


def _opened(file: Path, read: Callable[[Any], Any]) -> Any:
    """What is read from an image of a known mode; any failure is a ValueError."""
    optional("PIL", "reading images", "Pillow", "images")
    from PIL import Image as image_library

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", image_library.DecompressionBombWarning)
            with image_library.open(file) as image:
                if image.mode not in _MODES:
                    raise ValueError(f"it has the mode {image.mode}; convert it to 8 bits, grey or RGB")
                return read(image)
    except Exception as error:  # of Pillow's decoders, which have many kinds
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"expected an image at {file}, got: {reason}") from error


def _grey(image: Any) -> bool:
    colours = np.asarray(image.getpalette("RGB")).reshape(-1, 3)
    return bool((colours == colours[:, :1]).all())


def _size(image_size: Any) -> tuple[int, int]:
    if (
        not isinstance(image_size, tuple | list)
        or len(image_size) != 2
        or not all(isinstance(side, int) and not isinstance(side, bool) and side >= 1 for side in image_size)
    ):
        raise ValueError(f"expected an image size as height and width in pixels, got {image_size!r}")
    return image_size[0], image_size[1]


def _shown(shape: tuple[int, ...]) -> str:
    return f"{shape[0]}x{shape[1]} {'grey' if len(shape) == 2 else 'colour'}"
