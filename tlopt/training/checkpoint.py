"""Checkpoints of training runs as bytes that only the same runs accept.

    magic  8 bytes    version  4    sha256 of the rest  32    output of torch.save

The digest is verified before anything is parsed, and the parser builds only tensors and plain values. Fixed
tensors and the targets of pulls are left out: both come from the pretrained weights. So are generator states
and the order of batches: `train_epochs` derives both from seed, epoch and step.
"""

import hashlib
import io
import json
import pickle
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tlopt.errors import CheckpointUnreadable
from tlopt.model.linear_head import LinearFit
from tlopt.system.words import counted
from tlopt.training.loop import Epoch
from tlopt.training.metrics import Metrics
from tlopt.training.run import Run, memory_errors, widest_float

Fact = int | float | str

_HEADER = struct.Struct(">8sI32s")
_MAGIC = b"tlopt.ck"
_VERSION = 1
_MOMENTS = {"sgd": {"momentum_buffer"}, "adamw": {"step", "exp_avg", "exp_avg_sq"}}  # torch's names
_STEP_COUNTER = torch.zeros(())

# raised when the content is not what this version writes
CONTENT_ERRORS = (LookupError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError)


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint."""

    epochs: tuple[Epoch, ...]  # finished ones
    facts: dict[str, Fact]  # needed to build the runs before `apply`
    states: tuple[dict[str, Any], ...]  # one per run, for `apply`
    further: dict[str, Any] = field(default_factory=dict)  # as given to `pack`; not verified


def pack(
    runs: Sequence[Run],
    epochs: Sequence[Epoch],
    *,
    identity: str,
    facts: Mapping[str, Fact],
    further: Mapping[str, Any] | None = None,
) -> bytes:
    """Serialise the state of `runs` and their finished `epochs`.

    Args:
        runs: each suspended between two yields of `loop.steps`.
        identity: string that only these runs of this trial share.
        facts: values that a reader needs before it can build the runs.
        further: tensors and plain values, nested in dictionaries and lists, of work that the runs belong to.

    Raises:
        TypeError: a fact or a number in an epoch is not a plain Python value.
    """
    record = {"identity": identity, "facts": dict(facts), "epochs": [_row(epoch) for epoch in epochs]}
    buffer = io.BytesIO(bytes(_HEADER.size))
    buffer.seek(_HEADER.size)
    # JSON rejects values that are not plain at once; the tensor parser would only on reading
    states = [_state(run) for run in runs]
    torch.save({"record": json.dumps(record), "runs": states, "further": dict(further or {})}, buffer)
    with buffer.getbuffer() as view:
        digest = hashlib.sha256(view[_HEADER.size :]).digest()
        _HEADER.pack_into(view, 0, _MAGIC, _VERSION, digest)
    return buffer.getvalue()


def unpack(data: bytes, *, identity: str) -> Checkpoint:
    """Read a checkpoint written by `pack` for the same `identity`.

    Raises:
        CheckpointUnreadable: it is damaged, of another version or of another run; the message says which.
    """
    payload = _parse(_body(data))
    try:
        record, states = json.loads(payload["record"]), tuple(payload["runs"])
        further = dict(payload.get("further", {}))  # earlier versions wrote none
        if record["identity"] != identity:
            raise CheckpointUnreadable(f"it is of {record['identity']}, not of {identity}")
        epochs = tuple(_epoch(row) for row in record["epochs"])
        return Checkpoint(epochs, record["facts"], states, further)
    except CONTENT_ERRORS as error:
        raise CheckpointUnreadable(f"its content has another form: {error!r}") from error


def apply(checkpoint: Checkpoint, runs: Sequence[Run]) -> None:
    """Load a checkpoint into `runs`, in place.

    Everything is checked before a run is changed.

    Args:
        runs: as returned by `prepare_run` for the same points, seeds and weights.

    Raises:
        CheckpointUnreadable: the checkpoint belongs to other runs; `runs` are unchanged.
        OutOfMemory: the optimiser state does not fit on the device; `runs` are unusable.
    """
    if len(checkpoint.states) != len(runs):
        raise CheckpointUnreadable(f"it holds {counted(len(checkpoint.states), 'run')}, not {len(runs)}")
    try:
        for run, state in zip(runs, checkpoint.states, strict=True):
            _check_tensors(run, state["tensors"], state["moments"])
            _check_position(run, state["position"])
    except CONTENT_ERRORS as error:
        raise CheckpointUnreadable(f"its content has another form: {error!r}") from error
    with memory_errors():
        for run, state in zip(runs, checkpoint.states, strict=True):
            _move(run, state)


def _body(data: bytes) -> memoryview:
    """The bytes after the header, with their digest verified."""
    if len(data) < _HEADER.size:
        raise CheckpointUnreadable(f"it is cut off: {counted(len(data), 'byte')}")
    magic, version, digest = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise CheckpointUnreadable("it is not a checkpoint of tlopt")
    if version != _VERSION:
        raise CheckpointUnreadable(f"it has version {version}, this program reads {_VERSION}")
    body = memoryview(data)[_HEADER.size :]
    if hashlib.sha256(body).digest() != digest:
        raise CheckpointUnreadable("it is cut off or altered: its digest differs")
    return body


def _parse(body: memoryview) -> Any:
    try:
        return torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, AssertionError, struct.error, *CONTENT_ERRORS) as error:
        raise CheckpointUnreadable(f"it cannot be parsed: {type(error).__name__}") from error


def _changing(run: Run) -> dict[str, Tensor]:
    """The network's tensors, by name, that training may change; the others are pretrained and fixed."""
    fixed = frozenset(run.partition.fixed)
    return {name: tensor for name, tensor in run.network.net.state_dict().items() if name not in fixed}


def _parameters(run: Run) -> list[str]:
    """Names of the optimiser's parameters, in its order."""
    return [name for group in run.groups for name in group.names]


def _state(run: Run) -> dict[str, Any]:
    names, position = _parameters(run), run.position
    sums = None if position.sums is None else position.sums.cpu()
    return {
        "tensors": {name: tensor.cpu() for name, tensor in _changing(run).items()},
        "moments": {
            names[index]: {key: tensor.cpu() for key, tensor in row.items()}
            for index, row in run.optimizer.state_dict()["state"].items()
        },
        "position": {"epoch": position.epoch, "step": position.step, "sums": sums},
    }


def _check_tensors(run: Run, tensors: dict[str, Tensor], moments: dict[str, dict[str, Tensor]]) -> None:
    changing = _changing(run)
    other = sorted(set(changing) ^ set(tensors)) or sorted(set(moments) - set(_parameters(run)))
    if other:
        raise CheckpointUnreadable(f"it holds other tensors: {', '.join(other[:3])}")
    for name, tensor in changing.items():
        _check_tensor(name, tensors[name], tensor)
    for name, row in moments.items():
        if set(row) != _MOMENTS[run.point.optimizer]:
            raise CheckpointUnreadable(f"it is of another optimizer: {name} has {', '.join(sorted(row))}")
        for key, moment in row.items():
            _check_tensor(f"{key} of {name}", moment, _STEP_COUNTER if key == "step" else changing[name])


def _check_tensor(name: str, found: Tensor, wanted: Tensor) -> None:
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        raise CheckpointUnreadable(
            f"its {name} is {found.dtype} {tuple(found.shape)}, not {wanted.dtype} {tuple(wanted.shape)}"
        )


def _check_position(run: Run, position: dict[str, Any]) -> None:
    epoch, step, sums = position["epoch"], position["step"], position["sums"]
    whole = sums is None if step == 0 else step > 0 and sums.shape == (2,)
    # no step is possible after the last epoch
    if not whole or not 0 <= epoch <= run.point.epochs - (step > 0):
        raise CheckpointUnreadable(
            f"it stands at epoch {epoch + 1}, step {step} of {counted(run.point.epochs, 'epoch')}"
        )


@torch.no_grad()
def _move(run: Run, state: dict[str, Any]) -> None:
    for name, tensor in _changing(run).items():
        tensor.copy_(state["tensors"][name])
    # copies, so that training does not change the checkpoint
    moments = {
        index: {key: tensor.to(run.device, copy=True) for key, tensor in state["moments"][name].items()}
        for index, name in enumerate(_parameters(run))
        if name in state["moments"]
    }
    run.optimizer.load_state_dict(run.optimizer.state_dict() | {"state": moments})
    position, sums = run.position, state["position"]["sums"]
    position.epoch, position.step = state["position"]["epoch"], state["position"]["step"]
    position.sums = None if sums is None else sums.to(run.device, widest_float(run.device))


def _row(epoch: Epoch) -> dict[str, Any]:
    return asdict(epoch) | {"confusion": None if epoch.confusion is None else epoch.confusion.tolist()}


def _epoch(row: dict[str, Any]) -> Epoch:
    val, counts = row["val"], row["confusion"]
    parsed = {
        "val": None if val is None else Metrics(**val),
        "confusion": None if counts is None else np.array(counts, dtype=np.int64),
        "linear": tuple(LinearFit(**fit) for fit in row.get("linear", ())),
    }
    return Epoch(**row | parsed)
