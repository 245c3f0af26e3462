"""Short trainings on halves of the rows, which tell the weight of the pairs.

The pairwise term gains much on some logs with rare conversions and costs on others,
and only the log can tell. Networks with the default weight and with `TRIED_WEIGHT` are
trained for a few epochs on one half of the training rows, predict the other half, and
the halves change places; with times, the earlier half predicts the later one. All
converted rows take part, and some of the others, with weights that stand for all of
them. The tried weight is taken if the converted rows clearly have a lower log loss and
are ranked higher, and none if they do worse.
"""

import warnings
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import torch

from sk_pwiser._fit._fit_plan import FitPlan
from sk_pwiser._fit._train import draw_global_seed, random_numbers
from sk_pwiser._rows._encoded_rows import Impressions
from sk_pwiser._rows._gathered_rows import gather_rows
from sk_pwiser._rows._row_units import (
    MOST_EQUAL_ROWS,
    equal_row_units,
    row_hashes,
    split_large_units,
)
from sk_pwiser._settings import AUTO_WEIGHT
from sk_pwiser._training._build_net import NetForm, build_net
from sk_pwiser._training._checked_components import check_components
from sk_pwiser._training._encoded_data import EncodedData, Epochs
from sk_pwiser._training._net import MultiTaskNet
from sk_pwiser._training._paired_gain import PairedGain, scores_of
from sk_pwiser._training._pwiser_weight import (
    FREQUENT,
    WeightTrial,
    default_weight,
    takes_weight,
)
from sk_pwiser._utils._integers import ceil_div
from sk_pwiser._utils._random import LARGEST_SEED, Generators, seeded_globally
from sk_pwiser._utils._threads import limited_threads

# The weight that is compared with the default. A larger one gains no more AUC, and
# costs log loss.
TRIED_WEIGHT = 1.0

# With fewer conversions, the halves tell nothing; with more, the trial would take long,
# and the network learns them without the term.
FEWEST_CONVERSIONS = 100
MOST_CONVERSIONS = 5_000

# Rows without a conversion per converted one: more would tell little more.
OTHERS_PER_CONVERSION = 100

# Steps of each of the four trainings, in whole epochs.
STEPS = 48

# The trial reads at most as many rows as these passes over all training rows, about
# half of what early stopping takes, and at most this share of the planned epochs.
MOST_PASSES = 4
LARGEST_COST = 0.5

# Standard errors, the mean of those of log loss and ranking, from which on the tried
# weight is taken. The differences between two trainings are larger than rows tell.
CLEAR_GAIN = 2.5
# And the loss from which on the term is left out, which gains little there.
SMALL_LOSS = -1.0

# Each half has this share of the conversions.
SMALLEST_SHARE = 0.25


def try_weight(plan: FitPlan, data: EncodedData) -> EncodedData:
    """Return the data of a fit with what its rows say about the weight of the pairs.

    The random state of the fit does not change.
    """
    is_early = data.is_early
    data = replace(data, is_early=None)
    settings = plan.settings
    loss = plan.components.loss
    if settings.pwiser_weight != AUTO_WEIGHT or not takes_weight(loss):
        return data
    ranked_tasks = [head % len(data.base_rates) for head in loss.heads]
    if not ranked_tasks or min(data.base_rates[k] for k in ranked_tasks) >= FREQUENT:
        return data
    task = min(ranked_tasks, key=lambda k: data.base_rates[k])
    usual_weight = default_weight([data.base_rates[task]])
    trial = _Trial(
        plan=plan,
        data=data,
        task=task,
        usual_weight=usual_weight,
        is_early=is_early,
    )
    result = trial.run()
    if settings.verbose:
        print(result.reason)
    return replace(data, schema=replace(data.schema, weight_trial=result))


@dataclass(frozen=True, kw_only=True)
class _Trial:
    """A comparison of two weights by the training rows."""

    plan: FitPlan
    data: EncodedData
    task: int  # the rarest one that the term ranks
    usual_weight: float
    is_early: np.ndarray | None  # training rows of the first half in time

    def run(self) -> WeightTrial:
        """Compare the weights, unless there is a reason not to."""
        data = self.data
        name = data.schema.targets.task_names[self.task]
        n_events = data.event_shares[0][self.task] * len(data.train)
        few = f"{round(n_events)} rows with {name!r}"
        if n_events < FEWEST_CONVERSIONS:
            return self._keep(f"{few} are too few to choose a weight by.")
        if n_events > MOST_CONVERSIONS:
            return self._keep(f"{few} are enough without a larger one.")
        if not isinstance(self.plan.settings.weighting, str | type):
            # It would be trained, too.
            return self._keep("weighting is a module, which a trial would change.")
        n_others = min(len(data.train) - n_events, OTHERS_PER_CONVERSION * n_events)
        n_rows = round(n_events + n_others)
        epoch_steps = ceil_div(n_rows, 2 * self.plan.settings.batch_size)
        # Two weights, each on both halves.
        n_passes = min(MOST_PASSES, LARGEST_COST * data.epochs.last)
        most_epochs = int(n_passes * len(data.train) / (2 * n_rows))
        n_epochs = min(max(1, round(STEPS / epoch_steps)), most_epochs)
        if not n_epochs:
            return self._keep("a trial would take longer than half of the training.")
        seed = int(deepcopy(self.plan.random_state).randint(LARGEST_SEED))
        generator = np.random.default_rng(seed)
        share = n_others / (len(data.train) - n_events)
        rows, is_early = self._choose_rows(share, generator)
        halves = self._halves(rows, is_early, generator)
        if not halves:
            return self._keep("the rows cannot be halved.")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                gains = [
                    self._gain(rows, half, n_epochs=n_epochs, seed=seed)
                    for half in halves
                ]
        except ValueError as error:
            # Of the network or its data; the training itself raises it again.
            return self._keep(f"a trial has failed: {error}")
        return self._decide(gains)

    def _keep(self, reason: str) -> WeightTrial:
        return WeightTrial(None, f"pwiser_weight={self.usual_weight:.2g}: {reason}")

    def _decide(self, gains: Sequence[PairedGain]) -> WeightTrial:
        """Return the weight that held-out rows speak for."""
        log_loss, ranking = scores_of(gains)
        auc = float(np.mean([gain.auc for gain in gains]))
        figures = (
            f"on held-out halves, a weight of {TRIED_WEIGHT:g} instead of "
            f"{self.usual_weight:.2g} changes the AUC by {auc:+.3f} ({ranking:+.1f} "
            f"standard errors) and the log loss by {-log_loss:+.1f} standard errors"
        )
        score = (log_loss + ranking) / 2
        agree = all(sum(scores_of([gain])) > 0 for gain in gains)
        if score >= CLEAR_GAIN and agree:
            weight = TRIED_WEIGHT
        elif score <= SMALL_LOSS:
            weight = 0.0
        else:
            return self._keep(f"{figures}, which decides nothing.")
        return WeightTrial(weight, f"pwiser_weight={weight:g}: {figures}.")

    def _choose_rows(
        self, share: float, generator: np.random.Generator
    ) -> tuple[Impressions, np.ndarray | None]:
        """Return all rows with the event, and a share of the others, with weights.

        With times, the second result says which of them are in the first half.
        """
        chosen_masks = []

        def choose(part: Impressions) -> torch.Tensor:
            is_event = part.column("y")[:, self.task].cpu().numpy() == 1
            is_chosen = is_event | (generator.random(len(part)) < share)
            chosen_masks.append(is_chosen)
            return torch.from_numpy(np.flatnonzero(is_chosen))

        rows = gather_rows(self.data.train, choose)
        is_early = None
        if self.is_early is not None:
            is_early = self.is_early[np.concatenate(chosen_masks)]
        if share >= 1:
            return rows, is_early
        is_event = rows.column("y")[:, self.task] == 1
        weight = torch.where(is_event, 1.0, 1 / share)
        # The losses are divided by the number of rows, which are fewer.
        weight *= len(weight) / weight.sum()
        row_weights = rows.column("sample_weight")
        if row_weights is not None:
            n_columns = [1] * (row_weights.dim() - 1)
            weight = row_weights * weight.view(-1, *n_columns)
        all_weights = weight.new_ones((len(rows.codes), *weight.shape[1:]))
        selected = slice(None) if rows.rows is None else rows.rows
        all_weights[selected] = weight
        return replace(rows, sample_weight=all_weights), is_early

    def _halves(
        self,
        rows: Impressions,
        is_early: np.ndarray | None,
        generator: np.random.Generator,
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return which rows to train on, and which to predict, or nothing."""
        is_event = rows.column("y")[:, self.task].numpy() == 1
        is_first = is_early
        if is_first is None:
            is_first = self._first_half(rows, is_event, generator)
        share = is_first[is_event].mean()
        if not SMALLEST_SHARE <= share <= 1 - SMALLEST_SHARE:
            return []
        first = np.flatnonzero(is_first)
        second = np.flatnonzero(~is_first)
        if is_early is not None:
            return [(first, second)]
        return [(first, second), (second, first)]

    def _first_half(
        self, rows: Impressions, is_event: np.ndarray, generator: np.random.Generator
    ) -> np.ndarray:
        """Return which rows are in the first half; units are not parted."""
        units = self._units(rows)
        n_units = int(units.max()) + 1
        has_event = np.bincount(units, is_event, minlength=n_units) > 0
        is_first = np.zeros(n_units, dtype=bool)
        # Units with an event and others, each divided into halves.
        for members in (np.flatnonzero(has_event), np.flatnonzero(~has_event)):
            order = generator.permutation(members)
            is_first[order[::2]] = True
        halves: np.ndarray = is_first[units]
        return halves

    def _units(self, rows: Impressions) -> np.ndarray:
        """Return the units of rows: groups or, without them, equal rows."""
        n_rows = len(rows)
        groups = rows.column("groups")
        if groups is not None:
            _, units = np.unique(groups.numpy(), return_inverse=True)
            split, _ = split_large_units(units, SMALLEST_SHARE * n_rows)
            return np.asarray(split)
        selected = rows.rows
        inputs, _ = rows.batch(slice(0, n_rows) if selected is None else selected)
        n_inputs = len(self.data.schema.encoder.numeric_bins_)
        bags = None
        if "bag_indices" in inputs:
            bags = [
                inputs[f"bag_{name}"].numpy() if f"bag_{name}" in inputs else None
                for name in ("offsets", "indices", "weights", "ages")
            ]
        codes = inputs["codes"].numpy()
        numeric = np.asfortranarray(inputs["numeric"].numpy()[:, :n_inputs])
        hashes = row_hashes(codes, numeric, bags)
        units = equal_row_units(hashes, MOST_EQUAL_ROWS)
        return np.arange(n_rows) if units is None else np.asarray(units)

    def _gain(
        self,
        rows: Impressions,
        half: tuple[np.ndarray, np.ndarray],
        *,
        n_epochs: int,
        seed: int,
    ) -> PairedGain:
        """Train on one half with both weights, and compare them on the other one."""
        selected = np.arange(len(rows)) if rows.rows is None else rows.rows.numpy()
        train, test = (
            replace(rows, rows=torch.from_numpy(selected[numbers])) for numbers in half
        )
        usual, tried = (
            self._logits(train, test, weight=weight, n_epochs=n_epochs, seed=seed)
            for weight in (self.usual_weight, TRIED_WEIGHT)
        )
        y = test.column("y")[:, self.task].numpy()
        weights = np.ones(len(test))
        row_weights = test.column("sample_weight")
        if row_weights is not None:
            columns = row_weights.view(len(test), -1)
            weights = columns[:, self.task % columns.shape[1]].double().numpy()
        return PairedGain.of(usual, tried, y, weights)

    def _logits(
        self,
        train: Impressions,
        test: Impressions,
        *,
        weight: float,
        n_epochs: int,
        seed: int,
    ) -> np.ndarray:
        """Train a new net with a weight; return its logits for other rows."""
        plan = self.plan
        data = self.data
        settings = replace(
            plan.settings,
            pwiser_weight=weight,
            early_stopping=False,
            max_epochs=n_epochs,
            callbacks=None,
            checkpoint_dir=None,
            compile=False,
            verbose=0,
        )
        components = check_components(
            settings,
            data.schema.targets.task_names,
            plan.device,
            has_groups=train.groups is not None,
            random_state=np.random.RandomState(seed),
        )
        epochs = Epochs(None, 1, n_epochs)
        with seeded_globally(seed, plan.device):
            net = build_net(
                settings,
                components,
                data.schema,
                plan.device,
                form=NetForm.for_fit(settings, data.n_counted),
                epochs=epochs,
                n_rows=data.n_counted,
                base_rates=data.base_rates,
            )
        rows = replace(
            data, train=train, valid=None, further={}, level=None, epochs=epochs
        ).to(plan.device)
        generators = Generators(seed)
        global_seed = draw_global_seed(generators)
        threads = limited_threads(net.n_products)
        with random_numbers(net, generators, global_seed, plan.device), threads:
            net.partial_fit(rows, None)
            return _predict(net, test.to(plan.device), self.task)


def _predict(net: MultiTaskNet, rows: Impressions, task: int) -> np.ndarray:
    """Return the logits of a task, those of a sampled log if it is one."""
    iterator = net.get_iterator(rows)
    net._set_training(False)
    batches = []
    with torch.no_grad():
        for inputs, _ in iterator:
            output = net.infer(inputs)
            sampled = output.sampled_logits
            logits = output.logits if sampled is None else sampled
            batches.append(logits[:, task].float())
    logits_of_rows: np.ndarray = iterator.in_row_order(torch.cat(batches)).cpu().numpy()
    return logits_of_rows
