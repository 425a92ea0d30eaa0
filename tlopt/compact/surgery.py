"""Networks with fewer channels: tensors lose entries, and modules learn their new sizes."""

import copy
from collections.abc import Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from tlopt.compact.channel_labels import Axis
from tlopt.compact.groups import is_attention
from tlopt.model.network import Network


class FewerHeads(nn.MultiheadAttention):
    """Self-attention whose heads together are narrower than its input, in place of torch's, which has none.

    Tensors have the names of `nn.MultiheadAttention`; only calls that want no weights are supported.
    """

    def __init__(self, full: nn.MultiheadAttention) -> None:
        nn.Module.__init__(self)
        self.__dict__.update({name: value for name, value in full.__dict__.items() if name not in _TABLES})
        for name in _TABLES:
            getattr(self, name).update(getattr(full, name))

    def forward(  # type: ignore[override]
        self, query: Tensor, key: Tensor, value: Tensor, need_weights: bool = False
    ) -> tuple[Tensor, None]:
        """Attended values (N, L, E) for `query` (N, L, E), which is also `key` and `value`."""
        if need_weights or query is not key or key is not value or not self.batch_first:
            raise NotImplementedError("self-attention over (N, L, E) without weights only")
        projected = functional.linear(query, self.in_proj_weight, self.in_proj_bias)
        n, length, _ = query.shape
        parts = projected.view(n, length, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        q, k, v = parts.unbind(0)
        attended = functional.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        return self.out_proj(attended.transpose(1, 2).flatten(2)), None


_TABLES = ("_parameters", "_buffers", "_modules")  # of an nn.Module, which its own constructor makes


def without(network: Network, removed: Mapping[Axis, Tensor]) -> Network:
    """A copy of `network` whose tensors lack the `removed` indices; modules have their new sizes.

    Parameters keep their `requires_grad`; no entry that stays is changed.
    """
    smaller = copy.deepcopy(network)
    names = {name for name, _ in removed}
    state = {name: tensor for name, tensor in smaller.net.state_dict().items() if name in names}
    _replace(smaller, remaining(state, removed))
    return smaller


def remaining(tensors: Mapping[str, Tensor], removed: Mapping[Axis, Tensor]) -> dict[str, Tensor]:
    """`tensors`, by name, without the `removed` indices."""
    found = dict(tensors)
    for (name, dim), indices in removed.items():
        if name in found:
            tensor = found[name]
            stays = torch.ones(tensor.shape[dim], dtype=torch.bool)
            stays[indices] = False
            found[name] = tensor.index_select(dim, stays.nonzero().flatten().to(tensor.device))
    return found


def n_remaining(tensors: Mapping[str, Tensor], removed: Mapping[Axis, Tensor]) -> dict[str, int]:
    """How many numbers each of `tensors`, by name, has without the `removed` indices."""
    shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
    for (name, dim), indices in removed.items():
        if name in shapes:
            shapes[name][dim] -= len(indices)
    return {name: prod(shape) for name, shape in shapes.items()}


def masked(network: Network, removed: Mapping[Axis, Tensor]) -> Network:
    """A copy of `network` of the same size, in which the `removed` entries of all parameters are zero.

    Its logits are those of `without`: the claim that surgery is tested against.
    """
    twin = copy.deepcopy(network)
    parameters = dict(twin.net.named_parameters())
    with torch.no_grad():
        for (name, dim), indices in removed.items():
            if name in parameters:
                parameters[name].index_fill_(dim, indices.to(parameters[name].device), 0)
    return twin


def resized(network: Network, shapes: Mapping[str, torch.Size]) -> Network:
    """A copy of `network` whose tensors have these shapes and no values yet, to load a smaller network into.

    Raises:
        ValueError: a name or a shape does not belong to a smaller version of the network.
    """
    smaller = copy.deepcopy(network)
    known = smaller.net.state_dict()
    if known.keys() != shapes.keys():
        raise ValueError(f"tensors {sorted(known.keys() ^ shapes.keys())[:3]} are missing or unknown")
    blank = {}
    for name, shape in shapes.items():
        full = known[name].shape
        if len(full) != len(shape) or any(small > large for small, large in zip(shape, full, strict=True)):
            raise ValueError(f"{name} has the shape {tuple(shape)}, which does not fit {tuple(full)}")
        if full != shape:
            blank[name] = known[name].new_empty(shape)
    _replace(smaller, blank)
    return smaller


def _replace(network: Network, tensors: Mapping[str, Tensor]) -> None:
    """Put smaller tensors into `network`, and set the sizes that its modules remember, in place."""
    touched: dict[str, nn.Module] = {}
    for name, tensor in tensors.items():
        path, _, leaf = name.rpartition(".")
        module = network.net.get_submodule(path)
        touched[path] = module
        if leaf in module._parameters:
            old = module.get_parameter(leaf)
            setattr(module, leaf, nn.Parameter(tensor, requires_grad=old.requires_grad))
        else:
            setattr(module, leaf, tensor)
    for module in touched.values():
        _set_sizes(module)
    for path, module in [*network.net.named_modules()]:
        if is_attention(module):
            _set_heads(network.net, path, module)
    network.feature_width = _input_width(network.head)


def _set_sizes(module: nn.Module) -> None:
    """Set the sizes of a layer from its tensors."""
    weight = module._parameters.get("weight")
    match module:
        case _ConvNd():
            assert weight is not None
            if module.groups > 1:
                module.groups = module.groups * weight.shape[0] // module.out_channels
            module.out_channels, module.in_channels = weight.shape[0], weight.shape[1] * module.groups
        case nn.Linear():
            assert weight is not None
            module.out_features, module.in_features = weight.shape
        case _NormBase() if module.running_mean is not None:
            module.num_features = len(module.running_mean)


def _set_heads(net: nn.Module, path: str, module: Any) -> None:
    """Set the number of heads of an attention module from its tensors; torch's becomes a `FewerHeads`."""
    if isinstance(module, nn.MultiheadAttention):
        heads = module.in_proj_weight.shape[0] // 3 // module.head_dim
        if heads < module.num_heads:
            fewer = module if isinstance(module, FewerHeads) else FewerHeads(module)
            fewer.num_heads = heads
            net.set_submodule(path, fewer)
    else:
        module.num_heads = module.qkv.weight.shape[0] // 3 // module.head_dim
        module.attn_dim = module.num_heads * module.head_dim


def _input_width(head: nn.Module) -> int:
    return next(layer.in_features for layer in head.modules() if isinstance(layer, nn.Linear))
