"""Batches contain every image once, never a single image, and pixels in the requested order."""

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tlopt.data import batches as image_batches
from tlopt.data import pixels as pixel_store
from tlopt.data.batches import batches, gather_pixels, n_batches, put, resident

CPU = torch.device("cpu")


@pytest.fixture
def pixels() -> np.ndarray:
    """Ten images, each filled with its index."""
    return np.broadcast_to(np.arange(10, dtype=np.uint8)[:, None, None, None], (10, 4, 4, 3)).copy()


@given(st.integers(2, 300), st.integers(2, 70))
def test_every_image_is_in_exactly_one_batch_and_in_order(n_images: int, batch_size: int) -> None:
    order = np.random.default_rng(0).permutation(n_images)

    assert np.concatenate(list(batches(order, batch_size))).tolist() == order.tolist()


@given(st.integers(2, 300), st.integers(2, 70))
def test_no_batch_is_of_one_image_and_only_the_last_may_be_longer(n_images: int, batch_size: int) -> None:
    sizes = [len(batch) for batch in batches(np.arange(n_images), batch_size)]

    assert min(sizes) >= 2
    assert all(size == batch_size for size in sizes[:-1])
    assert sizes[-1] <= batch_size + 1


@given(st.integers(0, 300), st.integers(2, 70))
def test_the_number_of_batches_is_known_before(n_images: int, batch_size: int) -> None:
    assert n_batches(n_images, batch_size) == len(list(batches(np.arange(n_images), batch_size)))


def test_a_last_image_joins_the_batch_before() -> None:
    assert [len(batch) for batch in batches(np.arange(17), 8)] == [8, 9]


@pytest.mark.parametrize("wanted", [None, [0, 7, 9], [0, 1, 2], []])
def test_images_come_in_the_order_asked_for(pixels: np.ndarray, wanted: list[int] | None) -> None:
    source = (
        pixels if wanted is None else put(cast(pixel_store.Pixels, pixels), np.array(wanted, dtype=int), CPU)
    )

    found = gather_pixels(source, np.array([7, 0, 9, 0]), CPU)

    assert found.dtype == torch.uint8
    assert found.shape == (4, 4, 4, 3)
    assert found[:, 0, 0, 0].tolist() == [7, 0, 9, 0]


def test_a_batch_is_a_copy_of_the_store(pixels: np.ndarray) -> None:
    pixels.flags.writeable = False  # as a memory map is

    gather_pixels(pixels, np.array([3, 4]), CPU).zero_()

    assert pixels[3, 0, 0, 0] == 3


def test_without_a_gpu_the_store_stays_where_it_is(pixels: np.ndarray) -> None:
    assert resident(cast(pixel_store.Pixels, pixels), np.arange(10), CPU) is pixels


def test_where_a_gpu_refuses_the_room_it_seemed_to_have_the_store_stays_where_it_is(
    pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    kept = cast(pixel_store.Pixels, SimpleNamespace(image_bytes=pixels[0].nbytes))
    monkeypatch.setattr(image_batches, "gpu_bytes_free", lambda _: 1 << 30)
    monkeypatch.setattr(image_batches, "put", refuse)

    assert resident(kept, np.arange(10), torch.device("cuda")) is kept


@pytest.mark.parametrize("n_together", [1, 2, 10])
def test_on_a_device_are_those_that_are_wanted_and_no_others(
    pixels: np.ndarray, n_together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_batches, "_MOVED_BYTES", n_together * pixels[0].nbytes)
    found = put(cast(pixel_store.Pixels, pixels), np.array([2, 3, 8]), CPU)

    assert found.pixels[:, 0, 0, 0].tolist() == [2, 3, 8]
    assert found.others is pixels
