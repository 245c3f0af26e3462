"""Paired differences of the estimator's settings on validation rows.

    python benchmarks/default_differences.py pwiser_weight
    python benchmarks/default_differences.py numeric_encoding --data flights --seeds 3
    python benchmarks/default_differences.py early_stopping --rows 500 1000 2000

The first setting of a comparison is the reference. Each other setting is fitted on the
same rows with the same seeds. A line shows the mean difference in thousandths of AUC
per task (log loss in thousandths of a nat), followed by its standard error over the
seeds. The defaults of the estimator were chosen by these comparisons. No test row is
read, unless with `--part test`: the held-out rows are a part of the training rows, the
last one in time where the tables are split by time. Generated tables are new for each
seed. Data sets whose files are absent are left out.

The lines of `interaction`, `cross_layers`, `experts` and `members` end
with the processor time of a fit, as a multiple of the time of the first line's fits.

`experts` compares activations and normalisations of the hidden layers, and `members`
an average over networks with networks that share all weights but small adapters.
`balanced` weights the losses of rare tasks more. All are defined in this file.

`pwiser_forms` compares further forms of the pairwise term, which this file defines.
They act on the last task. As in `PWiseR`, each mean over lower rows is weighted with
the share of converted rows in the batch, so that one weight has the same effect at
every conversion rate. They ignore sample weights.
"""

import time
from typing import ClassVar
from unittest import mock

import numpy as np
import torch
from _harness import (
    aucs,
    begin,
    data_folder,
    in_thousandths,
    literal,
    make_parser,
    mean_log_loss,
)
from _tables import KUAIRAND, load_tables
from skorch.callbacks import Callback
from torch import nn
from torch.nn.functional import (
    binary_cross_entropy_with_logits,
    logsigmoid,
    relu,
    silu,
)

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.losses import MultiTaskLoss
from sk_pwiser.networks import MMoE, NetworkOutput, SharedBottom, _input
from sk_pwiser.networks._layers import StackedLinear
from sk_pwiser.weighting import Fixed

# ---------------------------------------------------------------- forms of the term


def hinge(higher, lower):
    """Return the hinge of every pair, with margin 1, of shape `(n_higher, n_lower)`."""
    return (1.0 - (higher[:, None] - lower[None, :])).clamp(min=0)


class PairForm(MultiTaskLoss):
    """Cross-entropy plus a weighted term on the last task; forms define `term`."""

    estimator_parameters: ClassVar[tuple[str, ...]] = ("pwiser_weight",)

    def __init__(self, task_names, *, pwiser_weight):
        super().__init__(task_names)
        self.pwiser_weight = pwiser_weight

    def forward(self, logits, y, sample_weight=None, groups=None):
        """Compute the loss of each task."""
        losses = binary_cross_entropy_with_logits(logits, y, reduction="none").mean(0)
        depth = y.sum(dim=1).long()
        last = torch.zeros_like(losses)
        last[-1] = self.pwiser_weight
        return losses + last * self.term(logits, depth, groups)

    def term(self, logits, depth, groups):
        """Return the pairwise term; `depth` is the funnel depth of each row."""
        raise NotImplementedError

    def row_losses(self, logits, targets):
        """Return the cross-entropy per row and task."""
        return binary_cross_entropy_with_logits(logits, targets, reduction="none")


def over_depths(scores, depth, n_tasks, mean):
    """Sum `mean(higher, lower)` over the lower depths, times the share of conversions.

    A depth without rows adds nothing.
    """
    converted = scores[depth == n_tasks]
    total = scores.sum() * 0.0
    for lower_depth in range(n_tasks):
        lower = scores[depth == lower_depth]
        if len(converted) and len(lower):
            total = total + len(converted) / len(scores) * mean(converted, lower)
    return total


class HardPairs(PairForm):
    """Each converted row is compared with the highest tenth of the lower rows."""

    def term(self, logits, depth, groups):
        """Return the mean over the hard pairs."""
        return over_depths(logits[:, -1], depth, logits.shape[1], self._mean)

    @staticmethod
    def _mean(higher, lower):
        return hinge(higher, lower.topk(max(len(lower) // 10, 1)).values).mean()


class WithinGroups(PairForm):
    """Converted rows are compared with the lower rows of the same group only."""

    asks_for_groups = True

    def term(self, logits, depth, groups):
        """Return the sum over converted rows of the mean over lower rows, per row."""
        scores, n_tasks = logits[:, -1], logits.shape[1]
        higher = depth == n_tasks
        total = scores.sum() * 0.0
        for lower_depth in range(n_tasks):
            lower = depth == lower_depth
            is_pair = groups[higher][:, None] == groups[lower][None, :]
            sums = (hinge(scores[higher], scores[lower]) * is_pair).sum(dim=1)
            total = total + (sums / is_pair.sum(dim=1).clamp(min=1)).sum()
        return total / len(scores)


class ConditionalHead(PairForm):
    """Converted rows against clicked ones, by the log-odds of P(last | first)."""

    def term(self, logits, depth, groups):
        """Return the mean over pairs of clicked rows."""
        log_p = logsigmoid(logits)
        log_cvr = (log_p[:, -1] - log_p[:, 0]).clamp(max=-1e-6)
        scores = log_cvr - torch.log(-torch.expm1(log_cvr))
        n_tasks = logits.shape[1]
        converted, clicked = depth == n_tasks, (depth > 0) & (depth < n_tasks)
        if not converted.any() or not clicked.any():
            return scores.sum() * 0.0
        pairs = hinge(scores[converted], scores[clicked])
        return converted.float().mean() * pairs.mean()


class Memory(PairForm):
    """Lower rows are also compared with converted rows of earlier batches.

    The remembered scores have no gradient. The gradient of the batch's own converted
    rows is scaled by the number of all over the mean number per batch, so that the
    forces on converted and lower rows cancel on average.
    """

    def __init__(self, task_names, *, pwiser_weight, n_remembered=256):
        super().__init__(task_names, pwiser_weight=pwiser_weight)
        self.n_remembered = n_remembered
        self.remembered = torch.empty(0)
        self.mean_converted = 0.0

    def term(self, logits, depth, groups):
        """Return the mean over pairs of the own and the remembered converted rows."""
        scores, n_tasks = logits[:, -1], logits.shape[1]
        own = scores[depth == n_tasks]
        if not self.training:
            return over_depths(scores, depth, n_tasks, lambda a, b: hinge(a, b).mean())
        keep = 0.99 if self.mean_converted else 0.0
        self.mean_converted = keep * self.mean_converted + (1 - keep) * len(own)
        n_all = len(own) + len(self.remembered)
        scale = n_all / max(self.mean_converted, 1e-3)
        pulled = own.detach() + scale * (own - own.detach())
        converted = torch.cat([pulled, self.remembered.to(scores)])
        total = scores.sum() * 0.0
        for lower_depth in range(n_tasks):
            lower = scores[depth == lower_depth]
            if n_all and len(lower):
                share = self.mean_converted / len(scores)
                total = total + share * hinge(converted, lower).mean()
        own = own.detach().cpu()
        self.remembered = torch.cat([self.remembered, own])[-self.n_remembered :]
        return total


class HalvedWeight(Callback):
    """Halve the weight of the term after every epoch, starting from a given one."""

    def __init__(self, weight):
        self.weight = weight

    def on_epoch_begin(self, net, **kwargs):
        """Set the weight of the epoch."""
        loss = net.criterion_.loss
        loss.pwiser_weight = self.weight * 0.5 ** len(net.history[:-1])


# ---------------------------------------------------------------- networks


class AllBins(SharedBottom):
    """A shared bottom whose first layer reads every bin of the numeric columns."""

    def __init__(self, spec, **params):
        with mock.patch.object(_input, "FEW_BINS", max([0, *spec.numeric_bins])):
            super().__init__(spec, **params)


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation of each unit of one layer, or of stacked layers."""

    def forward(self, hidden):
        flat = hidden if hidden.dim() == 2 else hidden.transpose(0, 1).flatten(1)
        normal = super().forward(flat)
        if hidden.dim() == 2:
            return normal
        return normal.view(hidden.transpose(0, 1).shape).transpose(0, 1)


NORMS = {None: lambda width: nn.Identity(), "batch": BatchNorm, "layer": nn.LayerNorm}


class NormalisedBottom(SharedBottom):
    """A shared bottom whose layers have a normalisation before the activation."""

    def __init__(self, spec, *, norm=None, activation=relu, **params):
        super().__init__(spec, **params)
        self.activation = activation
        self.norms = nn.ModuleList(
            NORMS[norm](layer.out_features) for layer in self.bottom.layers
        )

    def forward(self, codes, numeric):
        hidden = self.input_layer(codes, numeric)
        for layer, norm in zip(self.bottom.layers, self.norms, strict=True):
            hidden = self.activation(norm(layer(hidden)))
        return NetworkOutput(self.towers(hidden))


class HomeExperts(MMoE):
    """A mixture of the experts of HoME: batch normalisation and Swish in each layer."""

    def __init__(self, spec, **params):
        super().__init__(spec, **params)
        self.norms = nn.ModuleList(
            BatchNorm(layer.bias.numel()) for layer in self.experts.layers
        )

    def forward(self, codes, numeric):
        inputs = hidden = self.input_layer(codes, numeric)
        for layer, norm in zip(self.experts.layers, self.norms, strict=True):
            hidden = silu(norm(layer(hidden)))
        mixed = self.gates(inputs, hidden)
        return NetworkOutput(self.towers(mixed.expand(self.n_tasks, -1, -1)))


class Adapter(nn.Module):
    """Multiplies the units of each member by numbers, which start as random signs.

    Without signs, they start as 1. Weight decay pulls them towards these.
    """

    def __init__(self, n_members, width, signs):
        super().__init__()
        start = torch.ones(n_members, 1, width)
        if signs:
            start -= 2 * torch.randint(2, start.shape)
        self.register_buffer("start", start)
        self.change = nn.Parameter(torch.zeros(start.shape))

    def forward(self, hidden):
        return hidden * (self.start + self.change)


class Members(SharedBottom):
    """Members that share all weights but adapters and the last layers.

    The adapters of the "hidden" form multiply the first hidden layer, which is then
    computed once for all members; those of "full" the inputs and the outputs of each
    layer, as in TabM, with a bias of each member. The losses of the members are
    averaged in training, for binary cross-entropy only, and their probabilities in
    predictions.
    """

    def __init__(self, spec, *, n_members, form, **params):
        super().__init__(spec, **params)
        layers, n = self.bottom.layers, n_members
        first, widths = layers[0], [layer.out_features for layer in layers]
        width = first.out_features if form == "hidden" else first.in_features
        self.form = form
        self.adapters = nn.ModuleList([Adapter(n, width, signs=True)])
        self.outputs, self.biases = nn.ModuleList(), nn.ParameterList()
        if form == "full":
            self.adapters += [Adapter(n, width, signs=False) for width in widths[:-1]]
            self.outputs += [Adapter(n, width, signs=False) for width in widths]
            self.biases += [torch.zeros(n, 1, width) for width in widths]
        self.heads = nn.ModuleList()
        for tower in self.towers:
            head = StackedLinear(n, tower.hidden.n_out, 1)
            head.weight.data *= tower.output.initial_gain
            head.bias.data += tower.output.linear.bias.data
            self.heads.append(head)

    def forward(self, codes, numeric):
        hidden = self._bottom(self.input_layer(codes, numeric))
        towers = zip(self.towers, self.heads, strict=True)
        logits = torch.cat([head(tower.hidden(hidden)) for tower, head in towers], 2)
        log_p, log_q = (
            logsigmoid(sign * logits.double()).logsumexp(0) for sign in (1, -1)
        )
        mean = (log_p - log_q).float()
        if not self.training:
            return NetworkOutput(mean)

        def losses(labels):
            y = labels.y.expand(logits.shape)
            each = binary_cross_entropy_with_logits(logits, y, reduction="none")
            return each.mean((0, 1))

        # The loss of the mean has no gradient.
        return NetworkOutput(mean.detach(), extra_losses={"members": losses})

    def _bottom(self, inputs):
        if self.form == "full":
            hidden = inputs
            for index, layer in enumerate(self.bottom.layers):
                product = self.adapters[index](hidden) @ layer.weight.t()
                own_bias = layer.bias + self.biases[index]
                hidden = relu(self.outputs[index](product) + own_bias)
            return hidden
        first, *others = self.bottom.layers
        hidden = self.adapters[0](relu(first(inputs)))
        for layer in others:
            hidden = relu(layer(hidden))
        return hidden


class Balanced(Fixed):
    """Weights by the inverse square roots of the entropies of the tasks' base rates.

    Their sum over the tasks, each times its entropy, is that of equal weights.
    """

    def __init__(self, n_tasks):
        super().__init__(n_tasks, weights=[1.0] * n_tasks)

    def set_base_losses(self, losses):
        weights = losses.detach() ** -0.5
        self.weights.copy_(weights * losses.sum() / (weights * losses).sum())


# ---------------------------------------------------------------- comparisons


def values_of(name, *texts, label="{}"):
    """Return settings that differ in one parameter, with cross-entropy.

    A name such as `encoding_params__max_bins` is an entry of a dictionary.
    """
    outer, _, inner = name.partition("__")
    values = {label.format(text): literal(text) for text in texts}
    return {
        key: {outer: {inner: value} if inner else value, "loss": "bce"}
        for key, value in values.items()
    }


def pwiser(weight, **params):
    return {"pwiser_weight": weight, **params}


def cross(**params):
    return {"network_params": {"interaction": "cross", **params}, "loss": "bce"}


def network(kind, **params):
    return {"network": kind, "network_params": params, "loss": "bce"}


BCE = {"bce": {"loss": "bce"}}
ALONE = {"network": "single_task", "loss": "bce"}
EPOCHS = {"early_stopping": False, "loss": "bce"}
PAPER = {"surrogate": "squared_hinge", "score": "probability"}
DEFAULT_LR = MultiTaskCTRCVRClassifier().lr
COMPARISONS = {
    "pwiser_weight": {
        **BCE,
        "pwiser 0.1": pwiser(0.1),
        "pwiser 0.3": pwiser(0.3),
        "pwiser 1": pwiser(1.0),
        "paper's form 0.3": pwiser(0.3, loss_params=PAPER),
    },
    # At a weight at which the term acts more than at the default of 0.1.
    "pwiser_forms": {
        **BCE,
        "pwiser": pwiser(0.3),
        "all depths": pwiser(0.3, loss_params={"pairs": "funnel"}),
        "hard pairs": pwiser(0.3, loss=HardPairs),
        "same user": pwiser(0.3, loss=WithinGroups),
        "conditional": pwiser(0.3, loss=ConditionalHead),
        "memory": pwiser(0.3, loss=Memory),
        "weight halved": pwiser(0.3, callbacks=[HalvedWeight(0.3)]),
        "weight 1 halved": pwiser(1.0, callbacks=[HalvedWeight(1.0)]),
    },
    "network": values_of("network", "shared_bottom", "mmoe", "ple", "aitm", "stem"),
    "numeric_encoding": values_of(
        "numeric_encoding",
        "standard",
        "quantile",
        "piecewise_linear",
        "bins_and_scores",
    ),
    "bin_projection": {
        "every bin": {"network": AllBins, **BCE["bce"]},
        "projected": BCE["bce"],
    },
    "max_bins": values_of("encoding_params__max_bins", "16", "32", "64", "128"),
    "embedding_dim": values_of("embedding_dim", "16", "auto", "8", "32"),
    "weight_decay": values_of("weight_decay", "0", "1e-5", "1e-4", "1e-3"),
    "embedding_weight_decay": values_of(
        *("optimizer_params__embedding_weight_decay", "1e-4", "5e-4", "1e-3"),
        label="embeddings {}",
    ),
    # A rare task that shares nothing has small gradients, which decay may outweigh.
    "single_task_decay": {
        "adam": ALONE,
        "adamw": ALONE | {"optimizer": "adamw"},
        "adam, weight_decay=0": ALONE | {"weight_decay": 0.0},
    },
    "early_stopping": {
        "auto": BCE["bce"],
        "50 epochs": EPOCHS,
        "10 epochs": EPOCHS | {"max_epochs": 10},
        "stopping, a tenth": {"early_stopping": True, "loss": "bce"},
        "stopping, a fifth": {
            "early_stopping": True,
            "validation_fraction": 0.2,
            "loss": "bce",
        },
        "epochs of 3 splits": {"n_splits": 3, "loss": "bce"},
    },
    "interaction": {
        "none": BCE["bce"],
        "fm": {"network_params": {"interaction": "fm"}, "loss": "bce"},
        "cross": cross(),
        "cross, rank 32": cross(cross_rank=32),
        "2 layers, rank 32": cross(n_cross_layers=2, cross_rank=32),
        "3 layers, rank 32": cross(n_cross_layers=3, cross_rank=32),
        "cross, lr=1e-3": cross() | {"lr": 1e-3},
    },
    "cross_layers": {
        "1 layer": cross(cross_rank=32),
        "none": BCE["bce"],
        **{f"{n} layers": cross(n_cross_layers=n, cross_rank=32) for n in (2, 3, 4)},
    },
    "experts": {
        "ReLU": BCE["bce"],
        "layer norm, SiLU": network(NormalisedBottom, norm="layer", activation=silu),
        "batch norm, SiLU": network(NormalisedBottom, norm="batch", activation=silu),
        "mmoe": network("mmoe"),
        "mmoe, experts of HoME": network(HomeExperts),
    },
    "members": {
        "one network": BCE["bce"],
        "3 networks": {"n_networks": 3, "loss": "bce"},
        "8 members, hidden": network(Members, n_members=8, form="hidden"),
        "4 members, full": network(Members, n_members=4, form="full"),
    },
    "balanced": {
        "equal": {"loss": "bce"},
        "balanced": {"loss": "bce", "weighting": Balanced},
        "pwiser 1": pwiser(1.0),
    },
    "average_decay": values_of("optimizer_params__average_decay", "0", "0.9", "0.99"),
    "target_encoding": values_of("target_encoding", "False", "auto"),
}
TIMED = ("interaction", "cross_layers", "experts", "members")
DATA = (
    *("engage", "long", "rare", "hillstrom", "oulad", "flights", "adult", "columns-40"),
    *("generated-0.15-clean", "generated-0.5-clean", "generated-12-clean"),
    *("movielens", "insteval"),
)


def fitted(X, Y, groups, seed, n_splits=0, **params):
    """Fit once; with `n_splits` all rows, for the mean best epoch of some splits."""
    if n_splits:
        stopped = [
            fitted(X, Y, groups, seed * n_splits + split, early_stopping=True, **params)
            for split in range(n_splits)
        ]
        n_epochs = round(np.mean([model.best_epoch_ for model in stopped]))
        params |= {"early_stopping": False, "max_epochs": n_epochs}
    model = MultiTaskCTRCVRClassifier(random_state=seed, **params)
    return model.fit(X, Y, groups=groups)


def figures(tables, params, seed, n_networks=1):
    """Fit; return the AUC of each task with the log loss, and the time.

    With several networks, the probabilities are averaged.
    """
    groups = tables.X["user_id"] if in_groups(params) else None
    total, seconds = 0.0, 0.0
    for index in range(n_networks):
        started = time.process_time()
        own_seed = seed + 1000 * index
        model = fitted(tables.X, tables.Y, groups, own_seed, **params)
        seconds += time.process_time() - started
        total = total + model.predict_proba(tables.X_test)
    p = total / n_networks
    return [*aucs(tables.Y_test, p), mean_log_loss(tables.Y_test, p)], seconds


def in_groups(params):
    return params.get("loss") is WithinGroups


def some_rows(tables, n, seed):
    """Return tables with some of the training rows, in their order."""
    if n is None or n >= len(tables.X):
        return tables
    rows = np.sort(np.random.default_rng(seed).permutation(len(tables.X))[:n])
    return tables._replace(X=tables.X.iloc[rows], Y=tables.Y.iloc[rows])


def run(report, name, arguments, path, n_rows):
    """Print the differences on one data set."""
    settings = {
        label: params
        for label, params in COMPARISONS[arguments.comparison].items()
        if name in KUAIRAND or not in_groups(params)
    }
    results, times = ({label: [] for label in settings} for _ in "12")
    started = time.perf_counter()
    for seed in range(arguments.seeds):
        tables = load_tables(name, path, arguments.part, seed=seed)
        tables = some_rows(tables, n_rows, seed)
        for label, params in settings.items():
            own = dict(params)
            n_networks = own.pop("n_networks", 1)
            row, duration = figures(tables, own, seed, n_networks)
            results[label].append(row)
            times[label].append(duration)
    seconds = time.perf_counter() - started
    rates = ", ".join(f"{task} {rate:.2%}" for task, rate in tables.Y.mean().items())
    size = f"{len(tables.X):,} rows, {len(tables.X_test):,} held out"
    part = "" if arguments.part == "validation" else f"; part: {arguments.part}"
    report.text("", f"{name}: {size}; {rates}{part}")
    columns = [*tables.Y.columns, "log loss"]
    notes = {label: [] for label in settings}
    if arguments.comparison in TIMED:
        columns.append("time")
        base = np.array(next(iter(times.values())))
        notes = {label: [f"{np.mean(times[label] / base):.1f}"] for label in settings}
    report.table(columns, width=18)
    results = {label: np.array(rows) for label, rows in results.items()}
    reference, *others = settings
    base = results[reference]
    means = [f"{mean:.4f}" for mean in base.mean(axis=0)]
    report.row(reference, [*means, *notes[reference]])
    for label in others:
        differences = map(in_thousandths, (results[label] - base).T)
        report.row(label, [*differences, *notes[label]])
    report.text(f"{seconds / arguments.seeds / len(settings):.1f} s per fit")


def main():
    parser = make_parser(__doc__, seeds=5)
    parser.add_argument("comparison", choices=COMPARISONS)
    parser.add_argument("--data", nargs="+", choices=DATA, default=DATA)
    parser.add_argument(
        "--rows",
        type=int,
        nargs="+",
        default=[None],
        help="numbers of training rows, drawn at random per seed (default: all)",
    )
    parts = ["validation", "test"]
    parser.add_argument("--part", choices=parts, default="validation")
    quick = {"data": ["engage"], "rows": [2_000], "seeds": 2}
    arguments, report = begin("default_differences", parser, **quick)
    if arguments.seeds < 2:
        parser.error("--seeds must be at least 2, for a standard error")
    path = data_folder()
    report.text(
        f"{arguments.seeds} seeds; differences in thousandths to the first line "
        "(standard error)"
    )
    for name in arguments.data:
        try:
            for n_rows in arguments.rows:
                run(report, name, arguments, path, n_rows)
        except (FileNotFoundError, ImportError) as error:
            report.text("", f"{name} is left out: {error}")
    report.save()


if __name__ == "__main__":
    main()
