"""Your own table and your own images, from files to a figure.

To run anywhere, the script makes its files from the embedded digits: a CSV table with a column for each pixel and the
name of the class, and a folder of PNG images with a subfolder for each class. Replace them with yours.

    python examples/own_data.py [--epochs 10] [--folder own-data]

Needs `pip install "vicinal[tables,images]"`.
"""

import argparse
from pathlib import Path

import jax
import matplotlib
import numpy as np
import optax
import pandas as pd
from PIL import Image

import vicinal as vc

matplotlib.use("agg")  # no window
from matplotlib.figure import Figure

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def write_files(folder: Path) -> tuple[Path, Path]:
    """Makes a table and a folder of images."""
    digits = vc.data.load("digits")
    images = np.concatenate([digits.x_train, digits.x_test])
    words = np.array(WORDS)[np.concatenate([digits.y_train, digits.y_test])]
    table = pd.DataFrame(images.reshape(len(images), -1), columns=[f"pixel{i}" for i in range(64)])
    standardised = (table - table.mean()) / (table.std() + 1e-6)
    standardised.assign(digit=words).to_csv(folder / "digits.csv", index=False)
    for i, (image, word) in enumerate(zip(images, words, strict=True)):
        (folder / "images" / word).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.uint8(255 * image)).save(folder / "images" / word / f"{i:04}.png")
    return folder / "digits.csv", folder / "images"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--folder", type=Path, default=Path("own-data"))
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    table, images = write_files(arguments.folder)

    rule = vc.rules.InferenceLearning(inference=vc.inference.Simultaneous(steps=10, step_size=0.1))
    runs = {}
    for name, data in {
        "table": vc.data.load(table, target="digit"),
        "images": vc.data.load(images, test_share=0.2).flattened(),
    }.items():
        print(data)
        model = vc.nn.MLP((data.features, 64, data.classes), key=jax.random.key(0))
        runs[name] = vc.train.fit(
            rule,
            model,
            optax.adam(3e-3),
            data,
            key=jax.random.key(1),
            epochs=arguments.epochs,
            batch_size=32,
            validation=0.1,
            progress=False,
        )
        output = runs[name].predict(data.x_test[:5])
        guessed = [data.class_names[i] for i in np.argmax(output, axis=-1)]
        print(f"the first five are taken for {', '.join(guessed)}")

    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axes = figure.subplots()
    for name, run in runs.items():
        frame = run.to_frame()
        axes.plot(frame["epoch"], 100 * frame["validation_accuracy"], label=f"{name}, validation")
        axes.plot(frame["epoch"], 100 * frame["test_accuracy"], "--", label=f"{name}, test")
    axes.set_xlabel("epoch")
    axes.set_ylabel("accuracy (%)")
    axes.legend()
    figure.savefig(arguments.folder / "accuracy.png", dpi=150)
    print(f"figure: {arguments.folder / 'accuracy.png'}")


if __name__ == "__main__":
    main()
