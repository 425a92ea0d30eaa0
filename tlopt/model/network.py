"""A library's network, divided into ordered blocks and a head."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from tlopt.model.norms import keep_statistics

ForwardStep = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Chain:
    """The composition of `steps`, the first one applied first.

    Steps are modules, bound methods or partials, never closures: a deep copy of a `Network` then runs its own
    modules and not the original's.
    """

    steps: tuple[ForwardStep, ...]

    def __call__(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = step(x)
        return x


@dataclass(frozen=True)
class Block:
    """One block of a backbone: its modules and its forward pass, which leaves its input unchanged."""

    name: str
    members: tuple[str, ...]  # qualified names in `net` of modules and bare parameters
    forward: ForwardStep


def block(net: nn.Module, name: str, *steps: str | ForwardStep, owns: tuple[str, ...] = ()) -> Block:
    """A block that runs `steps` in order.

    Args:
        net: the library's module.
        name: name of the block.
        steps: names of modules of `net`, which become members of the block, or callables.
        owns: further members: modules and parameters that the callables use.
    """
    named = tuple(step for step in steps if isinstance(step, str))
    called = tuple(net.get_submodule(step) if isinstance(step, str) else step for step in steps)
    return Block(name, named + owns, Chain(called))


class Network(nn.Module):
    """A network that maps images (N, 3, H, W) to logits (N, classes) in blocks 1..B and a head.

    `net` is the library's module, and `net.state_dict()` has the library's names. The output of block B,
    which is the input of the head, has the shape (N, feature_width). The blocks of a shortened backbone are
    those that are left and its neck's; `net` is then a `ShortenedNet`, which keeps the library's names.

    Args:
        has_groups: whether the whole backbone has grouped convolutions; default: whether `net` has some.
    """

    def __init__(
        self,
        net: nn.Module,
        blocks: tuple[Block, ...],
        head_name: str,
        feature_width: int,
        *,
        has_groups: bool | None = None,
    ) -> None:
        super().__init__()
        self.net = net
        self.blocks = blocks
        self.head_name = head_name
        self.feature_width = feature_width
        self.has_groups = _has_groups(net) if has_groups is None else has_groups

    @property
    def head(self) -> nn.Module:
        """The classifier."""
        return self.net.get_submodule(self.head_name)

    def between(self, x: Tensor, start: int, end: int) -> Tensor:
        """The output of block `end`, given the output `x` of block `start` (block 0 is the images)."""
        for part in self.blocks[start:end]:
            x = part.forward(x)
        return x

    def suffix(self, x: Tensor, depth: int) -> Tensor:
        """Logits (N, classes), given the output `x` of block `depth`."""
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
        """Set eval mode for blocks 1..frozen_depth, train mode for the other blocks and the head, in place.

        Eval mode fixes batch-norm statistics and turns off dropout and stochastic depth. In the trained
        blocks up to `norm_depth`, only the batch-norm layers are in eval mode.
        """
        # The module's own flag controls functional dropout between the last block and the head.
        self.train(frozen_depth < len(self.blocks))
        for index in range(1, len(self.blocks) + 2):
            for member in self.members_of(index):
                if isinstance(member, nn.Module):
                    member.train(index > frozen_depth)
                    if frozen_depth < index <= norm_depth:
                        keep_statistics(member)


def _has_groups(net: nn.Module) -> bool:
    return any(isinstance(module, nn.Conv2d) and module.groups > 1 for module in net.modules())


def _member(net: nn.Module, name: str) -> nn.Module | nn.Parameter:
    owner, _, leaf = name.rpartition(".")
    found = getattr(net.get_submodule(owner), leaf)
    assert isinstance(found, (nn.Module, nn.Parameter)), f"{name} is neither a module nor a parameter"
    return found
