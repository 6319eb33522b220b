"""Where training stands is (epoch, rows learned): ranks may come and go, and no row is lost or doubled."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.data import Position, global_batches, pieces_of_a_step, shard

# after how many steps a life ends, how many of its last steps no checkpoint holds, on how many ranks it runs
LIVES = st.lists(st.tuples(st.integers(1, 30), st.integers(0, 6), st.integers(1, 5)), min_size=1, max_size=8)


@settings(max_examples=150, deadline=None)
@given(
    rows=st.integers(1, 120),
    batch_size=st.integers(1, 40),
    epochs=st.integers(1, 4),
    seed=st.integers(0, 2**32 - 1),
    asked=st.integers(1, 4),
    accumulation=st.one_of(st.just("auto"), st.integers(1, 4)),
    lives=LIVES,
)
def test_whatever_is_killed_and_however_many_ranks_go_on_every_epoch_sees_every_row_once(
    rows: int,
    batch_size: int,
    epochs: int,
    seed: int,
    asked: int,
    accumulation: int | str,
    lives: list[tuple[int, int, int]],
) -> None:
    def batches(start: Position):
        return global_batches(rows, batch_size=batch_size, seed=seed, epochs=epochs, start=start)

    learned: list[tuple[Position, list[int]]] = []  # what the weights of the last checkpoint have seen
    start = Position()
    for steps, lost, world in [*lives, (10**6, 0, 2)]:
        done: list[tuple[Position, list[int]]] = []
        for position, batch in batches(start):
            if len(done) == steps:
                break
            pieces = pieces_of_a_step(asked, world=world, accumulation=accumulation)
            held = [
                int(row)
                for rank in range(world)
                for piece in range(rank, pieces, world)
                for row in shard(batch, rank=piece, world=pieces)
            ]
            assert sorted(held) == sorted(map(int, batch))
            done.append((position, list(map(int, batch))))
        learned += done[: max(0, len(done) - lost)] if lost else done
        start = learned[-1][0] if learned else Position()

    uninterrupted = [(position, list(map(int, batch))) for position, batch in batches(Position())]
    assert learned == uninterrupted
    for epoch in range(epochs):
        seen = Counter(row for position, batch in learned if position.epoch == epoch for row in batch)
        assert seen == Counter(range(rows))


def test_the_cursor_is_not_found_by_iterating() -> None:
    far = Position(epoch=999_999, cursor=96)
    ((position, batch),) = global_batches(100, batch_size=32, seed=1, epochs=1_000_000, start=far)
    assert position == Position(epoch=999_999, cursor=100)
    assert len(batch) == 4


@pytest.mark.parametrize(
    ("asked", "world", "accumulation", "pieces"),
    [(2, 2, "auto", 2), (2, 1, "auto", 2), (4, 1, "auto", 4), (1, 3, "auto", 3), (2, 2, 4, 8), (2, 1, 4, 8)],
)
def test_fewer_ranks_take_more_pieces_each(
    asked: int, world: int, accumulation: int | str, pieces: int
) -> None:
    assert pieces_of_a_step(asked, world=world, accumulation=accumulation) == pieces
