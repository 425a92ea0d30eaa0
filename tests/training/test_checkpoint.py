"""A checkpoint restores its runs, and nothing else is accepted as one; see also `test_resume.py`."""

import contextlib
import hashlib
import json
import os
import pickle
import struct
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import Begin, MakePoint, changed
from torch import Tensor

from tlopt.data.batches import Images
from tlopt.errors import CheckpointUnreadable, OutOfMemory
from tlopt.model.head import make_head
from tlopt.model.network import Network
from tlopt.training.checkpoint import Checkpoint, apply, pack, unpack
from tlopt.training.loop import Epoch, steps, train_epochs
from tlopt.training.metrics import Metrics
from tlopt.training.run import Run

Stand = Callable[..., Run]
ID = "trial 3 of planted"
EPOCH = Epoch(
    index=0,
    train_loss=0.1 + 0.2,
    train_accuracy=1 / 3,
    val=Metrics(accuracy=0.7, balanced_accuracy=2 / 3, macro_f1=0.1, log_loss=float("inf")),
    confusion=np.array([[1, 2], [0, 2**40]]),
    seconds=0.25,
)


@pytest.fixture(scope="session")
def stand(begin: Begin, point: MakePoint, images: Images, train: np.ndarray) -> Stand:
    """A run of the tiny network after some optimiser steps."""

    def make(n_steps: int = 2, *, network: Network | None = None, **keys: object) -> Run:
        run = begin(point(**keys), network=network)
        events = steps(run, images, train, None)
        for _ in range(n_steps):
            next(events)
        return run

    return make


def packed(*runs: Run) -> bytes:
    return pack(runs, [], identity=ID, facts={})


def sealed(body: bytes, *, version: int = 1) -> bytes:
    """A file with a right header around `body`: only its content can give it away."""
    return struct.pack(">8sI32s", b"tlopt.ck", version, hashlib.sha256(body).digest()) + body


def saved(payload: object) -> bytes:
    buffer = BytesIO()
    torch.save(payload, buffer)
    return buffer.getvalue()


def payload_of(data: bytes) -> dict[str, Any]:
    payload: dict[str, Any] = torch.load(BytesIO(data[44:]), weights_only=True)
    return payload


def state(run: Run) -> dict[str, Tensor]:
    """Everything of a run that `apply` may change, copied."""
    tensors = {name: tensor.clone() for name, tensor in run.network.net.state_dict().items()}
    for index, row in run.optimizer.state_dict()["state"].items():
        tensors |= {f"{key} of {index}": tensor.clone() for key, tensor in row.items()}
    return tensors | {"position": torch.tensor([run.position.epoch, run.position.step])}


def test_epochs_and_facts_come_back_as_they_were() -> None:
    facts: dict[str, int | float | str] = {"n_micro": 4, "rate": 0.1 + 0.2, "card": "A100"}
    bare = replace(EPOCH, index=1, val=None, confusion=None)

    found = unpack(pack([], [EPOCH, bare], identity=ID, facts=facts), identity=ID)

    assert found.facts == facts
    assert found.epochs[0].confusion is not None
    assert found.epochs[0].confusion.dtype == np.int64
    assert found.epochs[0].confusion.tolist() == [[1, 2], [0, 2**40]]
    assert replace(found.epochs[0], confusion=None) == replace(EPOCH, confusion=None)
    assert found.epochs[1] == bare


def test_a_number_that_is_not_plain_is_refused_when_it_is_packed() -> None:
    with pytest.raises(TypeError):
        pack([], [], identity=ID, facts={"n_micro": np.int64(4)})  # type: ignore[dict-item]
    with pytest.raises(TypeError):
        pack([], [replace(EPOCH, seconds=np.float32(1))], identity=ID, facts={})  # type: ignore[arg-type]


@pytest.mark.parametrize("freeze", range(4))
def test_it_holds_every_tensor_but_the_frozen_ones_and_no_other(stand: Stand, freeze: int) -> None:
    run = stand(freeze_depth=freeze)
    names = set(run.network.net.state_dict())
    frozen = {name for name in names if name.startswith(("stem.", "middle.", "top.")[:freeze])}

    (held,) = unpack(packed(run), identity=ID).states

    assert set(held["tensors"]) == names - frozen
    assert freeze == 3 or any("running_mean" in name for name in held["tensors"])
    assert set(held["moments"]) == {name for name, _ in run.network.net.named_parameters()} - frozen


def test_a_run_at_its_start_has_a_checkpoint_too(begin: Begin, point: MakePoint, stand: Stand) -> None:
    start, moved = begin(point()), stand(3)

    apply(unpack(packed(start), identity=ID), [moved])

    assert changed(state(moved), state(begin(point()))) == set()


def test_packing_changes_nothing(stand: Stand) -> None:
    run = stand()
    before = state(run)

    first, second = packed(run), packed(run)

    assert changed(state(run), before) == set()
    assert first == second


@pytest.fixture(scope="session")
def small(stand: Stand) -> bytes:
    """A checkpoint of a head alone: a few thousand bytes."""
    data = packed(stand(freeze_depth=3))
    assert 2000 < len(data) < 9000
    return data


def test_a_truncated_file_of_any_length_is_unreadable(small: bytes) -> None:
    for length in range(len(small)):
        with pytest.raises(CheckpointUnreadable, match="cut off"):
            unpack(small[:length], identity=ID)


def test_a_flipped_bit_in_any_byte_is_found(small: bytes) -> None:
    damaged = bytearray(small)
    for index in range(len(small)):
        damaged[index] ^= 1 << (index % 8)
        with pytest.raises(CheckpointUnreadable):
            unpack(bytes(damaged), identity=ID)
        damaged[index] ^= 1 << (index % 8)
    unpack(bytes(damaged), identity=ID)


@given(more=st.binary(min_size=1, max_size=100))
def test_a_file_with_something_behind_it_is_unreadable(small: bytes, more: bytes) -> None:
    with pytest.raises(CheckpointUnreadable, match="altered"):
        unpack(small + more, identity=ID)


@given(data=st.binary(max_size=200))
def test_what_is_something_else_is_unreadable(data: bytes) -> None:
    with pytest.raises(CheckpointUnreadable, match=r"cut off|no checkpoint"):
        unpack(data, identity=ID)


def test_another_trials_checkpoint_is_refused(small: bytes) -> None:
    with pytest.raises(CheckpointUnreadable, match="of trial 3 of planted, not of trial 4"):
        unpack(small, identity="trial 4 of planted")


def test_another_version_is_refused_before_anything_is_parsed(small: bytes) -> None:
    with pytest.raises(CheckpointUnreadable, match="version 2, this program reads 1"):
        unpack(sealed(small[44:], version=2), identity=ID)


class Bomb:
    """An object that creates a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("layout", ["torch", "old torch", "pickle"])
def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, layout: str) -> None:
    payload = {"record": "{}", "runs": [Bomb(tmp_path / "crater")]}
    buffer = BytesIO()
    if layout == "pickle":
        pickle.dump(payload, buffer, protocol=2)
    else:
        torch.save(payload, buffer, _use_new_zipfile_serialization=layout == "torch")

    with pytest.raises(CheckpointUnreadable, match="cannot be parsed"):
        unpack(sealed(buffer.getvalue()), identity=ID)

    assert not (tmp_path / "crater").exists()
    with contextlib.suppress(pickle.UnpicklingError, RuntimeError):  # the bomb is live
        torch.load(BytesIO(buffer.getvalue()), weights_only=False)
    assert (tmp_path / "crater").exists()


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch wonders at what is planted
@given(body=st.one_of(st.binary(max_size=200), st.binary(max_size=50).map(lambda more: b"\x80\x02" + more)))
def test_a_whole_file_of_nonsense_is_unreadable(body: bytes) -> None:
    with pytest.raises(CheckpointUnreadable):
        unpack(sealed(body), identity=ID)


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=200)
@given(st.data())
def test_a_whole_file_with_damage_inside_is_unreadable_or_another_content(
    small: bytes, data: st.DataObject
) -> None:
    # what a program with a bug could write: the digest is right, the content is not
    body = bytearray(small[44:])
    index = data.draw(st.integers(0, len(body) - 1))
    body[index] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.one_of(st.just(len(body)), st.integers(0, len(body))))
    with contextlib.suppress(CheckpointUnreadable):
        assert isinstance(unpack(sealed(bytes(body[:cut])), identity=ID), Checkpoint)


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["val", "a"]), inner, max_size=2)
    ),
    max_leaves=4,
)


@given(payload=plain, record=plain, runs=plain, identity=st.sampled_from([ID, None]), rows=plain)
def test_a_content_of_another_form_is_unreadable(
    payload: object, record: object, runs: object, identity: object, rows: object
) -> None:
    almost = {"record": json.dumps({"identity": identity, "facts": {}, "epochs": rows}), "runs": runs}
    for content in (payload, {"record": record, "runs": []}, almost):
        try:
            found = unpack(sealed(saved(content)), identity=ID)
            apply(found, [None] * len(found.states))  # type: ignore[list-item]
            assert not found.states
        except CheckpointUnreadable:
            pass


OTHERS: dict[str, tuple[dict[str, object], str]] = {
    "freezes more": ({"freeze_depth": 1}, "other tensors: stem"),
    "optimizer": ({"optimizer": "adamw"}, "another optimizer: head.weight has momentum_buffer"),
    "fewer epochs": ({"epochs": 0}, "stands at epoch 1, step 2 of 0 epochs"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_checkpoint_of_another_run_is_refused_and_the_run_is_as_it_was(stand: Stand, name: str) -> None:
    keys, message = OTHERS[name]
    checkpoint = unpack(packed(stand(2)), identity=ID)
    run = stand(0, **keys)
    before = state(run)

    with pytest.raises(CheckpointUnreadable, match=message):
        apply(checkpoint, [run])

    assert changed(state(run), before) == set()


def test_another_shape_is_refused(stand: Stand, tiny: Callable[..., Network]) -> None:
    network = tiny()
    network.net.set_submodule("head", make_head(16, 4, layers=0, hidden_width=8, dropout=0.0))

    with pytest.raises(
        CheckpointUnreadable, match=r"its head.weight is torch.float32 \(4, 16\), not .* \(3, 16\)"
    ):
        apply(unpack(packed(stand(0, network=network)), identity=ID), [stand(0)])


def test_another_number_of_runs_is_refused(stand: Stand) -> None:
    with pytest.raises(CheckpointUnreadable, match="holds 1 run, not 2"):
        apply(unpack(packed(stand()), identity=ID), [stand(0), stand(0)])


def test_where_the_last_of_several_runs_does_not_fit_the_first_stays_as_it_was(stand: Stand) -> None:
    runs = [stand(0), stand(0, freeze_depth=1)]
    before = state(runs[0])

    with pytest.raises(CheckpointUnreadable):
        apply(unpack(packed(stand(), stand()), identity=ID), runs)

    assert changed(state(runs[0]), before) == set()


def without_position(held: dict[str, Any]) -> None:
    del held["position"]


def of_another_type(held: dict[str, Any]) -> None:
    held["tensors"]["head.bias"] = held["tensors"]["head.bias"].double()


def with_a_number_for_a_tensor(held: dict[str, Any]) -> None:
    held["moments"]["head.bias"]["momentum_buffer"] = 1


def with_a_moment_of_another_shape(held: dict[str, Any]) -> None:
    held["moments"]["head.bias"]["momentum_buffer"] = torch.zeros(4)


def before_the_first_epoch(held: dict[str, Any]) -> None:
    held["position"]["epoch"] = -1


def before_the_first_step(held: dict[str, Any]) -> None:
    held["position"]["step"] = -1


def behind_the_last_epoch(held: dict[str, Any]) -> None:
    held["position"]["epoch"] = 2


def without_sums(held: dict[str, Any]) -> None:
    held["position"]["sums"] = None


def with_sums_before_a_step(held: dict[str, Any]) -> None:
    held["position"]["step"] = 0


def with_three_sums(held: dict[str, Any]) -> None:
    held["position"]["sums"] = torch.zeros(3)


@pytest.mark.parametrize(
    "spoil",
    [
        without_position,
        of_another_type,
        with_a_number_for_a_tensor,
        with_a_moment_of_another_shape,
        before_the_first_epoch,
        before_the_first_step,
        behind_the_last_epoch,
        without_sums,
        with_sums_before_a_step,
        with_three_sums,
    ],
)
def test_a_state_that_cannot_be_is_refused_and_the_run_is_as_it_was(
    stand: Stand, spoil: Callable[[dict[str, Any]], None]
) -> None:
    payload, run = payload_of(packed(stand(2))), stand(0)
    spoil(payload["runs"][0])
    before = state(run)

    checkpoint = unpack(sealed(saved(payload)), identity=ID)
    with pytest.raises(CheckpointUnreadable):
        apply(checkpoint, [run])

    assert changed(state(run), before) == set()


def test_a_finished_run_has_nothing_left_to_do(
    begin: Begin, point: MakePoint, images: Images, train: np.ndarray
) -> None:
    run, again = begin(point()), begin(point())
    epochs = list(train_epochs(run, images, train, None))

    apply(unpack(pack([run], epochs, identity=ID, facts={}), identity=ID), [again])

    assert list(steps(again, images, train, None)) == []
    assert changed(state(again), state(run)) == set()


def test_moments_that_do_not_fit_the_device_are_out_of_memory(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    checkpoint, run = unpack(packed(stand()), identity=ID), stand(0)
    monkeypatch.setattr(run.optimizer, "load_state_dict", refuse)

    with pytest.raises(OutOfMemory):
        apply(checkpoint, [run])
