"""What is written for TensorBoard is read back by the format's own definitions."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer.helpers import HOME
from trainer.tensorboard import crc32c, records


def read(content: bytes) -> list[Any]:
    """Events of a file; a wrong checksum is an error."""
    from tensorboardX.crc32c import crc32c as theirs
    from tensorboardX.proto.event_pb2 import Event

    def masked(part: bytes) -> int:
        crc = theirs(part)
        return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF

    found, at = [], 0
    while at < len(content):
        head, (length,) = content[at : at + 8], struct.unpack("<Q", content[at : at + 8])
        body = content[at + 12 : at + 12 + length]
        assert struct.unpack("<I", content[at + 8 : at + 12])[0] == masked(head)
        assert struct.unpack("<I", content[at + 12 + length : at + 16 + length])[0] == masked(body)
        found.append(Event.FromString(body))
        at += 16 + length
    return found


def test_the_checksum_is_that_of_the_standard() -> None:
    assert crc32c(b"123456789") == 0xE3069283


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2**40), st.text(min_size=1, max_size=20), st.floats(width=32, allow_nan=False)
        )
    )
)
def test_every_metric_comes_back(points: list[tuple[int, str, float]]) -> None:
    finite = [point for point in points if abs(point[2]) != float("inf")]
    lines = [{"at": 1.5, "step": step, "name": name, "value": value} for step, name, value in points]
    first, *events = read(b"".join(records(lines)))
    assert first.file_version == "brain.Event:2"
    told = [(event.step, event.summary.value[0].tag, event.summary.value[0].simple_value) for event in events]
    assert told == finite
    assert all(event.wall_time == 1.5 for event in events)


@pytest.mark.parametrize("value", [None, True, "0.5", float("nan")])
def test_what_is_no_number_is_left_out(value: Any) -> None:
    assert len(read(b"".join(records([{"at": 1, "step": 1, "name": "x", "value": value}])))) == 1


def test_the_command_needs_nothing_but_python(tmp_path: Path) -> None:
    line = json.dumps({"at": 1.0, "step": 2, "name": "train/loss", "value": 0.25})
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(HOME / "trainer" / "tensorboard.py")],
        input=f"{line}\n\n".encode(), capture_output=True, check=True,
    )  # fmt: skip
    (_, event) = read(done.stdout)
    assert (event.step, event.summary.value[0].simple_value) == (2, 0.25)
