"""Channels followed through one forward pass: which entries of which tensors exist only together.

Every element of an activation carries a *label*, the number of the channel that it belongs to, and so does
every entry of a weight along its output and input dimension. Operations that combine elements tie their
labels: the input channels of a convolution to the columns of its weight, the terms of a sum to each other.
Labels that are tied, directly or through others, are one channel and can only be removed together.

Operations on shapes act on labels as they act on values, so that concatenations, splits, permutations and
flattened maps need no rule of their own. An operation without a rule ties its inputs to label 0, which is
never removed: an unknown operation costs opportunities, never correctness.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

KEPT = 0  # the label of everything that cannot be removed
_KEPT = torch.tensor(KEPT)
Axis = tuple[str, int]  # name of a parameter or buffer, and one of its dimensions


@dataclass(frozen=True)
class Ties:
    """Labels of the axes of tensors, and which of them are tied."""

    axes: dict[Axis, Tensor]  # label of each index of an axis; all labels are different
    n_labels: int  # including label 0
    pairs: Tensor  # (2, n): labels that are tied
    heads: Tensor  # labels that are whole batch entries of a product, as heads of attention are


def follow_channels(net: nn.Module, resolution: int) -> Ties:
    """The ties between channels of `net` for an image of `resolution` pixels per side; computes no values.

    `net` is left in eval mode. Logits are kept.
    """
    named = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    blank = {name: torch.empty_like(tensor, device="meta") for name, tensor in named.items()}
    follower = _Follower(blank)
    # Without a gradient, or with a fused kernel, attention would be one operation without a rule.
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), follower:
        for name, parameter in net.named_parameters():
            blank[name].requires_grad_(parameter.is_floating_point())
        dtype = next(parameter.dtype for parameter in blank.values() if parameter.is_floating_point())
        image = torch.empty(1, 3, resolution, resolution, dtype=dtype, device="meta")
        logits = functional_call(net.eval(), blank, (image,))
    follower.keep(logits)
    return follower.ties()


@dataclass(frozen=True)
class _Named:
    """A parameter or buffer, or a permutation of its dimensions."""

    name: str
    dims: tuple[int, ...]  # of the named tensor, in the order of this one's


class _Follower(TorchDispatchMode):  # type: ignore[no-untyped-call]  # in torch
    """Applies the rules below to every operation that runs under it."""

    def __init__(self, named: dict[str, Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._named = named
        self._known: dict[int, Tensor | _Named] = {}  # by the identity of tensors in `_alive`
        self._alive: list[Tensor] = []
        self._axes: dict[Axis, Tensor] = {}
        self._n_labels = 1
        self._pairs: list[Tensor] = []
        self._heads: list[Tensor] = []
        self._kept_names: set[str] = set()
        for name, tensor in named.items():
            self._remember(tensor, _Named(name, tuple(range(tensor.ndim))))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = func.overloadpacket.__name__
        in_place = name.endswith("_") and not name.endswith("__")
        rule = _RULES.get(name.removesuffix("_") if in_place else name, _keep_all)
        for tensor, value in zip(_tensors(out), rule(self, func, args, kwargs, out), strict=True):
            self._remember(tensor, value)
        return out

    def _remember(self, tensor: Tensor, value: Tensor | _Named) -> None:
        self._alive.append(tensor)  # else another tensor could get its identity
        self._known[id(tensor)] = value

    def named(self, tensor: Tensor) -> _Named | None:
        """The parameter or buffer that `tensor` is."""
        value = self._known.get(id(tensor))
        return value if isinstance(value, _Named) else None

    def labels(self, tensor: Tensor) -> Tensor:
        """A label for each element of `tensor`; a parameter must be a vector but for dimensions of size 1."""
        value = self._known.get(id(tensor))
        if isinstance(value, Tensor):
            return value
        if value is not None:
            wide = [dim for dim, size in enumerate(tensor.shape) if size > 1]
            if len(wide) == 1:
                shape = [-1 if dim == wide[0] else 1 for dim in range(tensor.ndim)]
                return self.axis(value.name, value.dims[wide[0]]).view(shape)
            self._kept_names.add(value.name)
        return _KEPT.expand(tensor.shape)

    def axis(self, name: str, dim: int) -> Tensor:
        """The labels of an axis."""
        if (name, dim) not in self._axes:
            size = self._named[name].shape[dim]
            self._axes[name, dim] = torch.arange(self._n_labels, self._n_labels + size)
            self._n_labels += size
        return self._axes[name, dim]

    def tie(self, one: Tensor, other: Tensor) -> None:
        """Tie the labels of two tensors, element by element."""
        shape = np.broadcast_shapes(one.shape, other.shape)
        one, other = one.expand(shape), other.expand(shape)
        for dim, (a, b) in enumerate(zip(one.stride(), other.stride(), strict=True)):
            if a == b == 0 and one.shape[dim]:  # repeated along it
                one, other = one.narrow(dim, 0, 1), other.narrow(dim, 0, 1)
        differ = one != other
        if differ.any():
            self._pairs.append(torch.unique(torch.stack([one[differ], other[differ]]), dim=1))

    def tie_along(self, labels: Tensor, *dims: int) -> Tensor:
        """Tie the labels that differ in these dimensions only; the labels with size 1 there."""
        first = labels
        for dim in dims:
            first = first.narrow(dim, 0, 1)
        self.tie(labels, first)
        return first

    def keep(self, *tensors: Tensor) -> None:
        """Tie all labels of `tensors` to label 0."""
        for tensor in tensors:
            self.tie(self.labels(tensor), _KEPT)

    def mark_heads(self, labels: Tensor) -> None:
        """Remember that these labels are heads."""
        self._heads.append(labels.flatten())

    def ties(self) -> Ties:
        """All that was found."""
        for (name, _), labels in self._axes.items():
            if name in self._kept_names:
                self.tie(labels, _KEPT)
        return Ties(
            axes=self._axes,
            n_labels=self._n_labels,
            pairs=torch.cat([torch.zeros(2, 0, dtype=torch.int64), *self._pairs], dim=1),
            heads=torch.cat([torch.zeros(0, dtype=torch.int64), *self._heads]),
        )


def _tensors(nested: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(nested) if isinstance(leaf, Tensor)]


# Rules: labels of an operation's outputs, given its arguments. They tie what the operation combines.

Values = Iterator[Tensor | _Named]


def _keep_all(follower: _Follower, func: Any, args: Any, kwargs: Any, out: Any) -> Values:
    """Keep everything that an unknown operation uses."""
    follower.keep(*_tensors((args, kwargs)))
    for tensor in _tensors(out):
        yield _KEPT.expand(tensor.shape)


def _elementwise(follower: _Follower, func: Any, args: Any, kwargs: Any, out: Any) -> Values:
    """Tie operands with each other; single numbers have no channels."""
    operands = [follower.labels(tensor) for tensor in _tensors((args, kwargs)) if tensor.numel() > 1]
    first = operands[0] if operands else _KEPT
    for other in operands[1:]:
        follower.tie(first, other)
    yield first.expand(out.shape)


def _unchanged(follower: _Follower, func: Any, args: Any, kwargs: Any, out: Any) -> Values:
    """The same tensor, or a copy of it."""
    source = args[0]
    if source.shape == out.shape:
        yield follower.named(source) or follower.labels(source)
    else:
        yield from _keep_all(follower, func, args, kwargs, out)


def _reshaped(follower: _Follower, func: Any, args: Any, kwargs: Any, out: Any) -> Values:
    """Move labels as values are moved; permuted parameters stay known."""
    source = args[0]
    if isinstance(source, Tensor) and (named := follower.named(source)) is not None:
        moved = _permutation(func, args, source.ndim)
        if moved is not None:
            yield _Named(named.name, tuple(named.dims[dim] for dim in moved))
            return
    labels = tree_map_only(Tensor, follower.labels, args)
    # Repeated labels have no view of another shape.
    moves = torch.reshape if func.overloadpacket.__name__ in ("view", "_unsafe_view") else func
    yield from _tensors(moves(*labels, **kwargs))


def _permutation(func: Any, args: Any, ndim: int) -> tuple[int, ...] | None:
    """The order of dimensions that a permutation gives; None for another operation."""
    order = list(range(ndim))
    match func.overloadpacket.__name__:
        case "t":
            return tuple(reversed(order))
        case "transpose":
            one, other = (dim % ndim for dim in args[1:3])
            order[one], order[other] = other, one
            return tuple(order)
        case "permute":
            return tuple(dim % ndim for dim in args[1])
    return None


def _pooled(follower: _Follower, func: Any, args: Any, kwargs: Any, out: Any) -> Values:
    """Pooling over the last two dimensions, whose positions all have a channel's label."""
    labels = follower.tie_along(follower.labels(args[0]), -2, -1)
    for tensor in _tensors(out):
        yield labels.expand(tensor.shape)


def _padded(follower: _Follower, func: Any, args: Any, kwargs: Any, out: Any) -> Values:
    """Padding gets the label of the positions beside it."""
    labels, padding = follower.labels(args[0]), args[1]
    dims = [-1 - index for index in range(len(padding) // 2) if padding[2 * index] or padding[2 * index + 1]]
    yield follower.tie_along(labels, *dims).expand(out.shape)


def _reduced(follower: _Follower, func: Any, args: Any, kwargs: Any, out: Any) -> Values:
    """A mean or a sum over dimensions, along which it ties."""
    labels = follower.labels(args[0])
    dims = args[1] if len(args) > 1 and args[1] is not None else range(labels.ndim)
    dims = [dims] if isinstance(dims, int) else list(dims)
    first = follower.tie_along(labels, *dims)
    yield first.reshape(out.shape)


def _softmax(follower: _Follower, func: Any, args: Any, kwargs: Any, out: Any) -> Values:
    """Ties along the dimension that sums to 1."""
    yield follower.tie_along(follower.labels(args[0]), args[1]).expand(out.shape)


def _batch_norm(follower: _Follower, func: Any, args: Any, kwargs: Any, out: Any) -> Values:
    """Ties channels with their weight, bias and statistics."""
    labels = follower.labels(args[0])
    channels = [-1 if dim == 1 else 1 for dim in range(labels.ndim)]
    for tensor in args[1:5]:
        if tensor is not None:
            follower.tie(labels, follower.labels(tensor).view(channels))
    for tensor in _tensors(out):
        yield labels if tensor.shape == labels.shape else _KEPT.expand(tensor.shape)


def _convolution(follower: _Follower, func: Any, args: Any, kwargs: Any, out: Any) -> Values:
    """Ties input channels with columns and output channels with rows, in a grouped one all of a group."""
    x, weight, bias, transposed, groups = args[0], args[1], args[2], args[6], args[8]
    named = follower.named(weight)
    if named is None or transposed or x.ndim != 4:
        yield from _keep_all(follower, func, args, kwargs, out)
        return
    inputs = follower.tie_along(follower.labels(x), -2, -1).flatten()
    outputs = follower.axis(named.name, 0)
    if groups == 1:
        follower.tie(inputs, follower.axis(named.name, 1))
    else:
        first = follower.tie_along(outputs.view(groups, -1), 1)
        follower.tie(inputs.view(groups, -1), first)
    if bias is not None:
        follower.tie(outputs, follower.labels(bias))
    yield outputs.view(1, -1, 1, 1).expand(out.shape)


def _linear(follower: _Follower, func: Any, args: Any, kwargs: Any, out: Any) -> Values:
    """A product with a transposed weight, as in `nn.Linear`: ties features with columns."""
    *bias, x, weight = args[:3] if func.overloadpacket.__name__ == "addmm" else args[:2]
    named = follower.named(weight)
    if named is None or named.dims != (1, 0):
        yield from _keep_all(follower, func, args, kwargs, out)
        return
    follower.tie(follower.tie_along(follower.labels(x), 0).flatten(), follower.axis(named.name, 1))
    outputs = follower.axis(named.name, 0)
    for tensor in bias:
        follower.tie(outputs, follower.labels(tensor))
    yield outputs.expand(out.shape)


def _batched_product(follower: _Follower, func: Any, args: Any, kwargs: Any, out: Any) -> Values:
    """Ties everything in an entry of the batch, which is a head where it can be removed."""
    one, other = (follower.labels(tensor) for tensor in args[:2])
    heads = follower.tie_along(one, 1, 2)
    follower.tie(other, heads)
    follower.mark_heads(heads)
    yield heads.expand(out.shape)


Rule = Callable[[_Follower, Any, Any, Any, Any], Values]


def _rules(rows: Sequence[tuple[Rule, str]]) -> dict[str, Rule]:
    return {name: rule for rule, names in rows for name in names.split()}


# By the names of torch's operations; those in place have no row of their own.
_RULES = _rules(
    [
        (
            _elementwise,
            "add sub mul div neg pow exp sqrt rsqrt maximum minimum addcmul clamp clamp_min clamp_max relu"
            " hardtanh hardswish hardsigmoid sigmoid silu gelu tanh leaky_relu elu softplus mish zero",
        ),
        (_unchanged, "clone detach alias _to_copy as_strided"),
        (
            _reshaped,
            "view _unsafe_view permute transpose t expand unsqueeze squeeze select slice split"
            " split_with_sizes unbind cat stack roll flip repeat",
        ),
        (_pooled, "max_pool2d_with_indices avg_pool2d _adaptive_avg_pool2d"),
        (_padded, "constant_pad_nd"),
        (_reduced, "mean sum amax"),
        (_softmax, "_softmax _safe_softmax"),
        (_batch_norm, "native_batch_norm cudnn_batch_norm _native_batch_norm_legit_no_training"),
        (_convolution, "convolution"),
        (_linear, "mm addmm"),
        (_batched_product, "bmm"),
    ]
)
