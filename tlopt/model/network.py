"""A pretrained network as ordered blocks and a head, around the library's own module."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from tlopt.model.norms import keep_statistics

Step = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Chain:
    """`steps` one after the other.

    The steps are modules, bound methods and partials of plain functions, so that a deep copy of a `Network`
    runs its own modules and not the original's.
    """

    steps: tuple[Step, ...]

    def __call__(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = step(x)
        return x


@dataclass(frozen=True)
class Block:
    """One unit of a backbone: what belongs to it, and what it computes without changing its input."""

    name: str
    members: tuple[str, ...]  # qualified names in `net` of modules and bare parameters
    forward: Step


def block(net: nn.Module, name: str, *steps: str | Step, owns: tuple[str, ...] = ()) -> Block:
    """A block that runs `steps` in order.

    Args:
        net: the library's module.
        name: of the block.
        steps: a name is a module of `net` that becomes a member; anything else is called.
        owns: members that a called step uses.
    """
    named = tuple(step for step in steps if isinstance(step, str))
    called = tuple(net.get_submodule(step) if isinstance(step, str) else step for step in steps)
    return Block(name, named + owns, Chain(called))


class Network(nn.Module):
    """Logits (N, classes) of images (N, 3, H, W): the library's module, cut into blocks 1..B and a head.

    `net.state_dict()` has the library's own names. Block B's output, what the head takes, is
    (N, feature_width).
    """

    def __init__(self, net: nn.Module, blocks: tuple[Block, ...], head_name: str, feature_width: int) -> None:
        super().__init__()
        self.net = net
        self.blocks = blocks
        self.head_name = head_name
        self.feature_width = feature_width

    @property
    def head(self) -> nn.Module:
        """The classifier, always new."""
        return self.net.get_submodule(self.head_name)

    def between(self, x: Tensor, start: int, end: int) -> Tensor:
        """The output of block `end` for the output `x` of block `start`, 0 being images."""
        for part in self.blocks[start:end]:
            x = part.forward(x)
        return x

    def suffix(self, x: Tensor, depth: int) -> Tensor:
        """Logits (N, classes) from the output `x` of block `depth`."""
        for part in self.blocks[depth:]:
            x = part.forward(x)
        logits: Tensor = self.head(x)
        return logits

    def forward(self, x: Tensor) -> Tensor:
        return self.suffix(x, 0)

    def members_of(self, index: int) -> tuple[nn.Module | nn.Parameter, ...]:
        """The modules and bare parameters of block `index` in 1..B, or of the head for B + 1."""
        if index == len(self.blocks) + 1:
            return (self.head,)
        return tuple(_member(self.net, name) for name in self.blocks[index - 1].members)

    def set_mode(self, frozen_depth: int, norm_depth: int = 0) -> None:
        """Put blocks 1..frozen_depth in eval mode in place, and the other blocks and the head in train mode.

        In eval mode batch-norm statistics stay, and dropout and stochastic depth are off. In blocks
        1..norm_depth that are trained, batch-norm layers alone are in eval mode.
        """
        # The module's own flag rules functional dropouts between the last block's modules and the head.
        self.train(frozen_depth < len(self.blocks))
        for index in range(1, len(self.blocks) + 2):
            for member in self.members_of(index):
                if isinstance(member, nn.Module):
                    member.train(index > frozen_depth)
                    if frozen_depth < index <= norm_depth:
                        keep_statistics(member)


def _member(net: nn.Module, name: str) -> nn.Module | nn.Parameter:
    owner, _, leaf = name.rpartition(".")
    found = getattr(net.get_submodule(owner), leaf)
    assert isinstance(found, (nn.Module, nn.Parameter)), f"{name} is neither a module nor a parameter"
    return found
