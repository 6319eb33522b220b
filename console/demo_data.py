"""The demo's data: 1,797 real handwritten digits that ship inside scikit-learn (BSD-3-Clause)."""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

from django.core.files.uploadedfile import SimpleUploadedFile
from PIL import Image
from sklearn.datasets import load_digits

DIGITS_NOTE = (
    "1,797 images of handwritten digits, 8 x 8 pixels, from scikit-learn (BSD-3-Clause), "
    "a copy of the test set of UCI's Optical Recognition of Handwritten Digits (CC BY 4.0)."
)


def digits_zip() -> SimpleUploadedFile:
    """A zip of PNGs in ten class folders."""
    digits = load_digits()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for index, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
            png = io.BytesIO()
            Image.fromarray((pixels / 16 * 255).astype("uint8"), mode="L").save(png, "PNG")
            archive.writestr(f"{label}/{index:04d}.png", png.getvalue())
    return SimpleUploadedFile("digits.zip", buffer.getvalue(), "application/zip")


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(digits_zip().read())
    print(f"wrote {sys.argv[1]}")
