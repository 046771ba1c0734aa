"""Where a model drops out: its own dropout modules, or sites that hooks add where it has none.

Source: Srivastava et al. 2014, section 4 (dropout), section 10 (Gaussian noise of the same variance).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor


class GaussianDropout(nn.Module):
    """Multiply by Gaussian noise around 1 in training, with the variance of dropout: `p / (1 - p)`.

    At evaluation it does nothing. `p` may be changed at any time, as that of `nn.Dropout`.

    Args:
        p: the share that dropout of the same variance would drop.

    Raises:
        ValueError: p outside [0, 1).

    Example:
        >>> import torch
        >>> from gradatim.regularizers.dropout_sites import GaussianDropout
        >>> noise, x = GaussianDropout(0.2), torch.ones(100_000)
        >>> with torch.random.fork_rng():
        ...     _ = torch.manual_seed(0)
        ...     print(f"{noise(x).std():.2f}")  # sqrt(.2 / .8)
        0.50
        >>> bool((noise.eval()(x) == x).all())
        True
    """

    def __init__(self, p: float = 0.1) -> None:
        super().__init__()
        self.p = share(p)

    def forward(self, x: Tensor) -> Tensor:
        """Return x times noise, `[...]` as x."""
        if not self.training or self.p == 0:
            return x
        return x * (1 + math.sqrt(self.p / (1 - self.p)) * torch.randn_like(x))

    def extra_repr(self) -> str:
        """Return what is printed between the brackets."""
        return f"p={self.p}"


class AddedDropout:
    """A forward hook that drops out of what a module returns, while that module is in training.

    Of a tuple or list the first entry is the output. A copy of the model has a copy of the hook. What a model saves
    holds no hooks.

    Args:
        p: the share that is dropped; it may be changed at any time.
    """

    def __init__(self, p: float = 0.0) -> None:
        self.p = p

    def __call__(self, module: nn.Module, args: Any, output: Any) -> Any:
        """Return the output with a share p of its numbers dropped.

        Raises:
            ValueError: it is neither a tensor nor a tuple that begins with one.
        """
        if not module.training or self.p == 0:
            return output
        if isinstance(output, torch.Tensor):
            return nn.functional.dropout(output, self.p)
        if not isinstance(output, tuple | list) or not isinstance(output[0], torch.Tensor):
            raise ValueError(
                f"a site drops out of a tensor, or of the first of a tuple; {type(module).__name__} gave "
                f"{type(output).__name__}: remove the sites, and put nn.Dropout into the model"
            )
        entries = [nn.functional.dropout(output[0], self.p), *output[1:]]
        return type(output)(*entries) if hasattr(output, "_fields") else type(output)(entries)


Dropping = _DropoutNd | GaussianDropout | AddedDropout
"""What can stand at a site: it has a `p`."""


def own_sites(model: nn.Module) -> dict[str, Dropping]:
    """Return the dropout modules of a model by name, in their order.

    Example:
        >>> from torch import nn
        >>> from gradatim.regularizers.dropout_sites import own_sites
        >>> own_sites(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.3)))
        {'1': Dropout(p=0.3, inplace=False)}
    """
    return {name: m for name, m in model.named_modules() if isinstance(m, _DropoutNd | GaussianDropout)}


def added_sites(model: nn.Module) -> dict[str, Dropping]:
    """Return the hooks that were added to a model, by the names of their modules."""
    return {
        name: hook
        for name, module in model.named_modules()
        for hook in module._forward_hooks.values()
        if isinstance(hook, AddedDropout)
    }


def places(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules whose outputs get a site where a model has no dropout, found by structure alone.

    The blocks are the longest list of modules of one class, such as the layers of a Llama. In each block the direct
    children that hold a matrix are its attention and its feed-forward network. Embeddings outside the blocks count too.
    """
    lists = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList | nn.Sequential)
        and len({type(child) for child in module.children()}) == 1
        and all(_has_matrix(child) for child in module.children())
    ]
    if not lists:
        return
    home, blocks = max(lists, key=lambda pair: len(pair[1]))
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and not f"{name}.".startswith(f"{home}."):
            yield name, module
    for place, block in blocks.named_children():
        inner = [(name, child) for name, child in block.named_children() if _has_matrix(child)]
        base = f"{home}.{place}".lstrip(".")
        yield from [(f"{base}.{name}", child) for name, child in inner] or [(base, block)]


def add_sites(model: nn.Module) -> dict[str, Dropping]:
    """Add a site with p = 0 by a hook at each place of a model, and return them by name."""
    found: dict[str, Dropping] = {}
    for name, module in places(model):
        found[name] = AddedDropout()
        module.register_forward_hook(found[name])
    return found


def remove_sites(model: nn.Module) -> None:
    """Remove every hook that was added to a model."""
    for module in model.modules():
        for key, hook in [*module._forward_hooks.items()]:
            if isinstance(hook, AddedDropout):
                del module._forward_hooks[key]
                module._forward_hooks_with_kwargs.pop(key, None)
                module._forward_hooks_always_called.pop(key, None)


def share(p: float, name: str = "p") -> float:
    """Return a share to drop as a number.

    Raises:
        ValueError: it is outside [0, 1).
    """
    if not 0 <= p < 1:
        raise ValueError(
            f"{name} is a share to drop, 0 or more and below 1; got {p}: give a number such as 0.1"
        )
    return float(p)


def _has_matrix(module: nn.Module) -> bool:
    return any(p.ndim > 1 for p in module.parameters())
