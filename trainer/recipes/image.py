"""Image classification: files in one folder a class, brought to one small square size, grey or in colour."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from trainer.contract import DataSpec
from trainer.data import Columns, Rows, words
from trainer.failures import BadData
from trainer.tasks import CLASSIFICATION as TASK

__all__ = ["GRAPH_INPUT", "TASK", "batch", "encode", "fit", "read", "signature"]

GRAPH_INPUT = "image"
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"})
MIN_SIDE = 8
MAX_SIDE = 64  # a small network learns little from more pixels, and time grows with the square


def read(folder: Path, data: DataSpec) -> Rows:
    root = folder / data.path
    if not root.is_dir():
        raise BadData(f"{data.path} is not a folder; images belong into {data.path}/<class>/<file>.")
    files = sorted(
        file
        for file in root.glob("*/*")
        if file.suffix.lower() in SUFFIXES
        and not file.name.startswith(".")
        and not file.parent.name.startswith(".")
    )
    if not files:
        raise BadData(f"{data.path} holds no image; expected {data.path}/<class>/<file>.png or .jpg.")
    pictures = [_open(file, f"{data.path}/{file.parent.name}/{file.name}") for file in files]
    side = _common_side([picture.size for picture in pictures])
    colour = any(picture.mode == "RGB" for picture in pictures)
    pixels_NCHW = np.stack([_pixels(picture, side, colour) for picture in pictures])
    labels = words([file.parent.name for file in files])
    return Rows(inputs={"image": pixels_NCHW}, labels=labels)


def fit(inputs: Columns) -> dict[str, Any]:
    pixels_NCHW = inputs["image"]
    channels = pixels_NCHW.shape[1]
    mean = [float(pixels_NCHW[:, channel].mean(dtype=np.float64)) / 255 for channel in range(channels)]
    scale = [float(pixels_NCHW[:, channel].std(dtype=np.float64)) / 255 for channel in range(channels)]
    scale = [max(value, 1e-3) for value in scale]
    return {"side": int(pixels_NCHW.shape[2]), "channels": int(channels), "mean": mean, "scale": scale}


def signature(transform: Mapping[str, Any]) -> list[dict[str, Any]]:
    side = transform["side"]
    return [{"name": "image", "datatype": "FP32", "shape": [-1, transform["channels"], side, side]}]


def encode(transform: Mapping[str, Any], inputs: Columns) -> npt.NDArray[np.generic]:
    """Pixels stay as they are: mean and scale are part of the graph. Training keeps bytes to save memory."""
    return inputs["image"]


def batch(encoded: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    if encoded.dtype == np.uint8:
        return encoded.astype(np.float32) / np.float32(255)
    return encoded.astype(np.float32, copy=False)


def read_one(file: Path | BinaryIO, shown: str, *, side: int, colour: bool) -> npt.NDArray[np.uint8]:
    """One picture as the training saw its like: [channels, side, side]."""
    return _pixels(_open(file, shown), side, colour)


def _open(file: Path | BinaryIO, shown: str) -> Image.Image:
    """Decode one file to grey ("L") or colour ("RGB"); transparency is laid on white."""
    try:
        with Image.open(file) as opened:
            picture: Image.Image = ImageOps.exif_transpose(opened)
            if picture.mode.startswith("I;16") or picture.mode in ("I", "F"):
                return _from_deep_grey(picture)
            if picture.mode in ("1", "L"):
                return picture.convert("L")
            if picture.mode in ("LA", "PA", "RGBA", "P"):
                rgba = picture.convert("RGBA")
                picture = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
            picture = picture.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadData(f"{shown} cannot be read as an image: {error}. Replace or remove it.") from None
    pixels = np.asarray(picture)
    grey = bool((pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 1] == pixels[..., 2]).all())
    return picture.getchannel(0) if grey else picture


def _from_deep_grey(picture: Image.Image) -> Image.Image:
    pixels = np.asarray(picture, dtype=np.float64)
    top = 65535.0 if picture.mode != "F" or pixels.max() > 1 else 1.0
    return Image.fromarray((np.clip(pixels / top, 0, 1) * 255).round().astype(np.uint8))


def _common_side(sizes: list[tuple[int, int]]) -> int:
    typical = int(np.median([min(size) for size in sizes]))
    return min(max(typical, MIN_SIDE), MAX_SIDE)


def _pixels(picture: Image.Image, side: int, colour: bool) -> npt.NDArray[np.uint8]:
    if picture.size != (side, side):
        picture = picture.resize((side, side), Image.Resampling.BILINEAR)
    pixels = np.asarray(picture.convert("RGB" if colour else "L"), dtype=np.uint8)
    return pixels.transpose(2, 0, 1) if colour else pixels[None]
