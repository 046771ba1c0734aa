"""Guided dropout: less dropout behind the parts of a pretrained model that its pretraining data depend on most.

As published: the empirical Fisher on pretraining data, its mean for each tensor, the unweighted mean of the tensors
before each site, and a schedule that is linear in the rank. The site of the highest Fisher drops nothing.

Source: Sharma, Muralidhar, Xu, Yousuf, Ramakrishnan 2024, "Information Guided Regularization for Fine-tuning Language
Models" (arXiv 2406.14005), and its released code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from .dropout_sites import Dropping, add_sites, added_sites, own_sites, remove_sites, share
from .fisher import empirical_fisher, row_count, some_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor

ORDERS = ("guided", "reversed")
"""Most dropout at the lowest Fisher, or at the highest: the control."""


@dataclass(frozen=True)
class Site:
    """A place of dropout: its name, the Fisher of what stands before it (None: not scored), and its share p."""

    name: str
    fisher: float | None
    p: float


@dataclass(frozen=True)
class Sites:
    """The sites of a model's dropout, in the order of the model. It prints as a table.

    Attributes:
        sites: each with its Fisher and p.
        model: whose sites they are.
        added: whether hooks make the sites, as the model has no dropout module.
        rows: that the Fisher is a mean over.
        way: how gradients of rows were taken: "vmap" or "rows"; empty where there is no Fisher.

    Example:
        >>> from torch import nn
        >>> from gradatim.regularizers.fisher_dropout import set_dropout
        >>> print(set_dropout(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.3), nn.Linear(2, 2)), 0.1))
        1 site of the model's own dropout modules
        site  Fisher      p
        1          -  0.1000
    """

    sites: tuple[Site, ...]
    model: nn.Module
    added: bool = False
    rows: int = 0
    way: str = ""

    @property
    def p(self) -> dict[str, float]:
        """Return the share of each site by name, as `set_dropout` takes it."""
        return {site.name: site.p for site in self.sites}

    @property
    def fisher(self) -> dict[str, float]:
        """Return the Fisher of each site that was scored."""
        return {site.name: site.fisher for site in self.sites if site.fisher is not None}

    @property
    def mean(self) -> float:
        """Return the mean share over the sites that were scored, or over all where none was."""
        chosen = [site.p for site in self.sites if site.fisher is not None] or [*self.p.values()]
        return sum(chosen) / len(chosen)

    def __len__(self) -> int:
        return len(self.sites)

    def __iter__(self) -> Iterator[Site]:
        return iter(self.sites)

    def remove(self) -> None:
        """Take away the hooks that were added; dropout modules of the model stay as they are."""
        remove_sites(self.model)

    def __str__(self) -> str:
        kind = (
            "added by hooks, as the model has no dropout"
            if self.added
            else "of the model's own dropout modules"
        )
        scored = f"; Fisher of {self.rows} rows ({self.way})" if self.rows else ""
        width = max(4, *(len(site.name) for site in self.sites))
        lines = [
            f"{len(self)} site{'s' * (len(self) > 1)} {kind}{scored}",
            f"{'site':<{width}}  Fisher      p",
        ]
        for site in self.sites:
            fisher = "-" if site.fisher is None else f"{site.fisher:.1e}"
            lines.append(f"{site.name:<{width}} {fisher:>7}  {site.p:.4f}")
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head, _, *rows = str(self).splitlines()
        cells = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row.split())}</tr>" for row in rows)
        return f"<p>{head}</p><table><tr><th>site</th><th>Fisher</th><th>p</th></tr>{cells}</table>"


def guide_dropout(
    model: nn.Module,
    loss: Callable[[Any, Any], Tensor],
    batches: Iterable[Any],
    highest: float = 0.1,
    order: str = "guided",
) -> Sites:
    """Set the dropout of a pretrained model by its Fisher information, in place, and return the table of sites.

    Do it once after pretraining, on some hundred rows of what the model was pretrained on, with that loss; then
    fine-tune as ever. `set_dropout(model, sites.p)` sets the same again elsewhere.

    - What stands before a site: the parameters of the module that holds it, cut where it holds several sites by the
      order of a pass, with a norm right behind the site. So BERT's sites have 5, 6, 4 and 4 tensors, as published.
    - A site before which nothing stands, as that of a head, keeps its p and has no Fisher in the table.
    - A model without a dropout module, such as a Llama, gets sites by hooks: behind embeddings, and in each of its
      blocks behind each part with a matrix. The table says so, and `Sites.remove` takes them away.
    - Dropout that is a number and no module (inside `nn.MultiheadAttention`, or of attention weights) is left as it is.

    Args:
        model: any module; p of its dropout modules changes, nothing else.
        loss: `loss(model, batch)`, the pretraining loss as a scalar or `[B]`. It is called with batches of one row.
        batches: pretraining data: `[B, ...]` tensors, or tuples, lists or dicts of such.
        highest: p at the lowest Fisher. The highest Fisher has 0, so the mean is half of it.
        order: `"guided"`, or `"reversed"` to see whether the order matters.

    Raises:
        ValueError: fewer than two sites to order, no rows, a loss that is not finite, a Fisher of 0 everywhere, or
            options out of range.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from gradatim.regularizers.fisher_dropout import guide_dropout
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(), nn.Linear(8, 8), nn.Dropout(), nn.Linear(8, 4))
        >>> sites = guide_dropout(model, lambda m, x: (m(x) - x).square().mean(), [torch.randn(64, 4)])
        >>> sorted(sites.p.values()), model[1].p == sites.p["1"]
        ([0.0, 0.1], True)
    """
    highest = share(highest, "highest")
    if order not in ORDERS:
        raise ValueError(f"order must be one of {', '.join(ORDERS)}; got {order!r}: choose one of them")
    sites, added, (values, rows, way) = _scored(model, loss, iter(batches))
    falling = sorted(values, key=lambda name: -values[name])
    if order == "reversed":
        falling.reverse()
    for rank, name in enumerate(falling):
        sites[name].p = highest * rank / (len(falling) - 1)
    table = tuple(Site(name, values.get(name), float(site.p)) for name, site in sites.items())
    return Sites(table, model, added, rows, way)


def set_dropout(model: nn.Module, p: float | Mapping[str, float]) -> Sites:
    """Set the dropout of a model, in place: one share for all sites, or that of each by name.

    A model without a dropout module gets sites by hooks, as from `guide_dropout`. Sites that are not named stay.

    Args:
        model: any module.
        p: a share, or shares by name such as `Sites.p`.

    Raises:
        ValueError: a share outside [0, 1), a name that is no site, or a model where no site can be.

    Example:
        >>> from torch import nn
        >>> from gradatim.regularizers.fisher_dropout import set_dropout
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.Linear(2, 2), nn.Dropout())
        >>> set_dropout(model, {"3": 0.2}).p
        {'1': 0.5, '3': 0.2}
    """
    shares = dict(p) if isinstance(p, Mapping) else None
    checked = [share(value) for value in (shares.values() if shares is not None else [p])]  # type: ignore[list-item]
    sites, added = _sites(model)
    if shares is None:
        shares = dict.fromkeys(sites, checked[0])
    if unknown := sorted(shares.keys() - sites.keys()):
        raise ValueError(
            f"{', '.join(unknown[:3])} is no site of dropout; the model has {', '.join(list(sites)[:5])}: name these"
        )
    for name, value in shares.items():
        sites[name].p = float(value)
    return Sites(tuple(Site(name, None, float(site.p)) for name, site in sites.items()), model, added)


def _sites(model: nn.Module) -> tuple[dict[str, Dropping], bool]:
    """Return the sites of a model, and whether hooks make them; they are added where there is none."""
    if own := own_sites(model):
        return own, False
    sites = added_sites(model) or add_sites(model)
    if not sites:
        raise ValueError(
            f"{type(model).__name__} has no dropout module, and no list of blocks to add sites to: put nn.Dropout into "
            "the model where it should drop out"
        )
    return sites, True


def _scored(
    model: nn.Module, loss: Callable[[Any, Any], Tensor], batches: Iterator[Any]
) -> tuple[dict[str, Dropping], bool, tuple[dict[str, float], int, str]]:
    """Return the sites of a model, whether hooks make them, and their scores; sites added in vain are removed."""
    first = next(batches, None)
    if first is None:
        raise ValueError("batches are empty: give at least one batch of pretraining data")
    had = added_sites(model)
    sites, added = _sites(model)
    try:
        before = _preceding(model, loss, first, sites, added)
        return sites, added, _scores(model, loss, chain([first], batches), before)
    except BaseException:
        if added and not had:
            remove_sites(model)
        raise


def _scores(
    model: nn.Module, loss: Callable[[Any, Any], Tensor], batches: Iterable[Any], before: dict[str, list[str]]
) -> tuple[dict[str, float], int, str]:
    """Return the Fisher of each site with parameters before it, the rows, and how gradients were taken."""
    scored = [name for name, parts in before.items() if parts]
    if len(scored) < 2:
        raise ValueError(
            f"guided dropout orders two sites or more; got {len(scored)} behind layers: set this one by set_dropout"
        )
    fisher, rows, way = empirical_fisher(model, loss, batches)
    means = {name: float(value.mean()) for name, value in fisher.items()}
    values = {name: sum(means[part] for part in before[name]) / len(before[name]) for name in scored}
    if not any(values.values()):
        raise ValueError("the Fisher is 0 everywhere: the loss must depend on the layers before the sites")
    return values, rows, way


def _preceding(
    model: nn.Module,
    loss: Callable[[Any, Any], Tensor],
    batch: Any,
    sites: dict[str, Dropping],
    added: bool,
) -> dict[str, list[str]]:
    """Return the names of the parameters before each site."""
    names = {id(p): name for name, p in model.named_parameters() if p.is_floating_point()}
    modules = dict(model.named_modules())
    if added:
        return {name: [names[id(p)] for p in modules[name].parameters() if id(p) in names] for name in sites}
    passed = _passed(model, loss, batch, sites)
    seen = set(passed)
    owners = {name: _owner(name, modules) for name in sites}
    found: dict[str, list[str]] = {name: [] for name in sites}
    for owner in dict.fromkeys(owners.values()):
        inner = [o for o in owners.values() if o != owner and _below(o, owner)]
        mine = [n for n in passed if _below(n, owner) and not any(_below(n, o) for o in inner)]
        whole = [n for n in mine if n not in sites]
        waiting: list[str] = []
        for name in mine:
            at = passed.index(name)
            if name in sites:
                found[name], waiting = waiting, []
            elif (
                at
                and found.get(passed[at - 1])
                and owners.get(passed[at - 1]) == owner
                and _norm(modules[name])
            ):
                found[passed[at - 1]].append(name)
            else:
                waiting.append(name)
        # dropout that is not called as a module, as of attention weights inside of a fused function
        found |= {n: whole for n, o in owners.items() if o == owner and n not in seen}
    return {
        site: [*dict.fromkeys(names[id(p)] for n in parts for p in _held(n, modules, seen) if id(p) in names)]
        for site, parts in found.items()
    }


def _passed(
    model: nn.Module, loss: Callable[[Any, Any], Tensor], batch: Any, sites: dict[str, Dropping]
) -> list[str]:
    """Return the names of sites and of modules with parameters of their own, in the order of a pass."""
    order: list[str] = []
    modes = {module: module.training for module in model.modules()}
    handles = [
        module.register_forward_pre_hook(lambda *_, name=name: order.append(name))
        for name, module in model.named_modules()
        if name in sites or any(True for _ in module.parameters(recurse=False))
    ]
    try:
        model.eval()
        with torch.enable_grad():  # fused layers of torch are left out of a pass with gradients
            row_count(batch)
            loss(model, some_rows(batch, slice(0, 1)))
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
    return [*dict.fromkeys(order)]


def _owner(site: str, modules: dict[str, nn.Module]) -> str:
    """Return the name of the nearest module around a site that holds parameters."""
    while site:
        site = site.rpartition(".")[0]
        if any(True for _ in modules[site].parameters()):
            break
    return site


def _below(name: str, owner: str) -> bool:
    return not owner or f"{name}.".startswith(f"{owner}.")


def _norm(module: nn.Module) -> bool:
    return all(p.ndim <= 1 for p in module.parameters())


def _held(name: str, modules: dict[str, nn.Module], seen: set[str]) -> Iterator[nn.Parameter]:
    """Yield the parameters of a module, and of modules in it that no pass calls by themselves."""
    yield from modules[name].parameters(recurse=False)
    for inner, module in modules[name].named_children():
        path = f"{name}.{inner}".lstrip(".")
        if not any(_below(n, path) for n in seen):
            yield from module.parameters()
