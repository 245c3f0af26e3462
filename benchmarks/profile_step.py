"""Where a training step, an encoding and a prediction spend their time.

    python benchmarks/profile_step.py
    python benchmarks/profile_step.py --quick
    python benchmarks/profile_step.py --parts step operations --param loss=pwiser
    python benchmarks/profile_step.py --device cuda --batch 65536

The MMoE of `train_speed.py`, or the estimator with the parameters of `--param`.

- `step`: the time of the parts of a step, compared with the bare loop. Timers run
  around the batches, the modules of the network, the loss, the backward pass and the
  optimiser of a `fit`; `all else` is the rest of an epoch: the loops of skorch and of
  this package. On CUDA every timer waits for the device, so that the parts are right
  and their sum is longer than a step.
- `operations`: the operators of torch with the most time, from torch.profiler.
- `encode`, `predict`: the functions with the most time in `TableEncoder.fit_transform`
  and in `predict_proba`, on the table of `train_speed.py`, from cProfile, which
  overestimates functions with many calls.
"""

import cProfile
import pstats
import time
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from _bare import BareMMoE, bare_loss
from _tables import CARDINALITIES, impressions, prepare
from _timing import Report, literal_pairs, make_parser, start, synchronize
from skorch.callbacks import Callback
from train_speed import own_model

from sk_pwiser._table._encoder import TableEncoder

PACKAGES = ("sk_pwiser", "pandas", "numpy", "torch", "skorch", "sklearn", "pyarrow")
PARTS = ("step", "operations", "encode", "predict")
GATHER, FORWARD, LOSS = "gather the batch", "forward", "loss"
BACKWARD, OPTIMIZER, ELSE = "backward", "optimiser", "all else"


class PartTimer:
    """Seconds by part; the time of a nested part counts for the inner one only."""

    def __init__(self, device):
        self.device = device
        self.seconds = defaultdict(float)
        self.open = []

    def begin(self, part):
        self._tick()
        self.open.append(part)

    def end(self):
        self._tick()
        self.open.pop()

    def _tick(self):
        synchronize(self.device)
        now = time.perf_counter()
        if self.open:
            self.seconds[self.open[-1]] += now - self.last
        self.last = now

    def around(self, part, function):
        """Return the function with a timer around it."""

        def timed(*args, **kwargs):
            self.begin(part)
            try:
                return function(*args, **kwargs)
            finally:
                self.end()

        return timed

    def follow(self, part, module):
        """Time the calls of a module; return the handles that remove the timer."""
        return [
            module.register_forward_pre_hook(lambda *_: self.begin(part)),
            module.register_forward_hook(lambda *_: self.end()),
        ]


class TimedBatches:
    """Batches of a net, with a timer around each."""

    def __init__(self, iterator, timer):
        self.iterator, self.timer = iterator, timer

    def __getattr__(self, name):
        return getattr(self.iterator, name)

    def __iter__(self):
        self.timer.begin(GATHER)
        batches = iter(self.iterator)
        self.timer.end()
        following = self.timer.around(GATHER, lambda: next(batches, None))
        while (batch := following()) is not None:
            yield batch


class AddTimers(Callback):
    """Add timers to a net when training begins, and remove them when it ends."""

    def __init__(self, timer):
        self.timer = timer

    def on_train_begin(self, net, **kwargs):
        timer, network = self.timer, net.module_
        self.handles = timer.follow(f"{FORWARD}: the rest", network)
        for name, module in network.named_children():
            self.handles += timer.follow(f"{FORWARD}: {name}", module)
        self.handles += timer.follow(LOSS, net.criterion_.loss)
        net.optimizer_.step = timer.around(OPTIMIZER, net.optimizer_.step)
        get_iterator = net.get_iterator
        net.get_iterator = lambda *args, **kwargs: TimedBatches(
            get_iterator(*args, **kwargs), timer
        )

    def on_epoch_begin(self, net, **kwargs):
        self.timer.seconds.clear()

    def on_epoch_end(self, net, **kwargs):
        self.parts = dict(self.timer.seconds)

    def on_train_end(self, net, **kwargs):
        for handle in self.handles:
            handle.remove()
        del net.get_iterator, net.optimizer_.step


@contextmanager
def timed_backward(timer):
    """Time the backward pass."""
    engine = torch.autograd
    names = ("backward", "grad")
    with ExitStack() as stack:
        for name in names:
            timed = timer.around(BACKWARD, getattr(engine, name))
            stack.enter_context(mock.patch.object(engine, name, timed))
        yield


def time_own(X, Y, arguments):
    """Return the seconds of a step in the last epoch, by part and in total."""
    n_steps = -(-len(X) // arguments.batch)
    plain = own_model(arguments.batch, arguments.device, 2, **arguments.own)
    whole = plain.fit(X, Y).history_[-1, "dur"]
    timer = PartTimer(arguments.device)
    callback = AddTimers(timer)
    model = own_model(
        arguments.batch,
        arguments.device,
        2,
        **{**arguments.own, "callbacks": [callback]},
    )
    with timed_backward(timer):
        model.fit(X, Y)
    parts = callback.parts
    parts[ELSE] = model.history_[-1, "dur"] - sum(parts.values())
    return {part: value / n_steps for part, value in parts.items()}, whole / n_steps


def time_bare(data, arguments):
    """Return the same for the second epoch of the bare loop."""
    device, batch_size = arguments.device, arguments.batch
    timer = PartTimer(device)
    model = BareMMoE(CARDINALITIES, data.numeric.shape[1]).to(device)
    model.inputs = timer.around(f"{FORWARD}: input_layer", model.inputs)
    for part in [*model.experts, *model.gates, *model.towers, *model.outputs]:
        timer.follow(bare_part(model, part), part)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(2):
        timer.seconds.clear()
        started = time.perf_counter()
        order = torch.randperm(len(data.y), device=data.y.device)
        for rows in order.split(batch_size):
            optimizer.zero_grad(set_to_none=True)
            timer.begin(GATHER)
            codes, numeric, y = (tensor[rows] for tensor in data)
            timer.end()
            logits = timer.around(f"{FORWARD}: the rest", model)(codes, numeric)
            loss = timer.around(LOSS, bare_loss)(logits, y)
            timer.around(BACKWARD, loss.backward)()
            timer.around(OPTIMIZER, optimizer.step)()
        whole = time.perf_counter() - started
    parts = dict(timer.seconds)
    parts[ELSE] = whole - sum(parts.values())
    n_steps = -(-len(data.y) // batch_size)
    return {part: value / n_steps for part, value in parts.items()}, whole / n_steps


def bare_part(model, part):
    """Return the name that this package uses for a part of the bare model."""
    for name in ("experts", "gates"):
        if any(part is module for module in getattr(model, name)):
            return f"{FORWARD}: {name}"
    return f"{FORWARD}: towers"


def report_step(report, arguments):
    """Print the parts of a step for both loops."""
    X, Y = impressions(arguments.rows)
    data = prepare(X, Y).to(arguments.device)
    own, bare = [], []
    for _ in range(arguments.rounds):
        own.append(time_own(X, Y, arguments))
        bare.append(time_bare(data, arguments))
    heading = f"A step, batch {arguments.batch:,}, {arguments.own or 'bce'}"
    report.section(heading, "% of the step; bare loop")
    wholes = np.array([whole for _, whole in own])
    bare_wholes = np.array([whole for _, whole in bare])
    parts = sorted({part for step, _ in [*own, *bare] for part in step})
    for part in parts:
        ours = np.array([step.get(part, 0.0) for step, _ in own])
        theirs = np.array([step.get(part, 0.0) for step, _ in bare])
        share = 100 * ours / [sum(step.values()) for step, _ in own]
        times = f"{1e3 * np.median(ours):.2f}; {1e3 * np.median(theirs):.2f} ms"
        report.line(part, share, absolute=times, digits=1)
    times = f"{1e3 * np.median(wholes):.2f}; {1e3 * np.median(bare_wholes):.2f} ms"
    report.line("total without timers; bare loop", absolute=times)


def report_operations(report, arguments):
    """Print the operators of torch with the most time in `fit`."""
    X, Y = impressions(min(arguments.rows, 10 * arguments.batch))
    model = own_model(arguments.batch, arguments.device, 2, **arguments.own)
    activities = [torch.profiler.ProfilerActivity.CPU]
    key = "self_cpu_time_total"
    if arguments.device == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
        key = "self_device_time_total"
    with torch.profiler.profile(activities=activities) as profiler:
        model.fit(X, Y)
    found = profiler.key_averages()
    total = sum(getattr(event, key) for event in found)
    report.section("Operators of torch", "% of all")
    for event in sorted(found, key=lambda event: -getattr(event, key))[:15]:
        share = [100 * getattr(event, key) / total]
        calls = f"{event.count:,} calls"
        report.line(event.key[:44], share, absolute=calls, digits=1)


def report_functions(report, heading, run):
    """Print the functions with the most time in a run, without their callees."""
    run()
    profiler = cProfile.Profile()
    profiler.runcall(run)
    stats = pstats.Stats(profiler)
    report.section(f"{heading}: {stats.total_tt:.2f} s", "% of the run")
    for package, seconds in by_package(stats).items():
        share = [100 * seconds / stats.total_tt]
        report.line(f"all of {package}", share, digits=1)
    order = sorted(stats.stats.items(), key=lambda item: -item[1][2])
    for (file, line, name), (_, n_calls, own, _, _) in order[:15]:
        place = file.replace("\\", "/").rpartition("/")[2]
        label = name if place == "~" else f"{place}:{line} {name}"
        share = [100 * own / stats.total_tt]
        report.line(label[:44], share, absolute=f"{n_calls:,} calls", digits=1)


def by_package(stats):
    """Return the seconds spent in the functions of each package, in falling order."""
    seconds = defaultdict(float)
    for (file, _, _), (_, _, own, _, _) in stats.stats.items():
        path = Path(file).parts
        known = [name for name in PACKAGES if name in path]
        seconds[known[-1] if known else "built-in functions and others"] += own
    return dict(sorted(seconds.items(), key=lambda item: -item[1]))


def report_predict(report, arguments):
    """Print the functions with the most time in predictions of many rows and of one."""
    X, Y = impressions(arguments.rows)
    model = own_model(arguments.batch, arguments.device, **arguments.own).fit(X, Y)
    heading = f"predict_proba, {len(X):,} rows"
    report_functions(report, heading, lambda: model.predict_proba(X))
    one, times = X.iloc[:1], 5 if arguments.quick else 50

    def run():
        for _ in range(times):
            model.predict_proba(one)

    report_functions(report, f"predict_proba, {times} times one row", run)


def main():
    parser = make_parser(__doc__, rounds=3)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--rows", type=float, default=1e5)
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument(
        "--param",
        nargs="*",
        default=[],
        metavar="NAME=VALUE",
        help="parameters of the estimator",
    )
    arguments = parser.parse_args()
    arguments.own = literal_pairs(arguments.param)
    if arguments.quick:
        arguments.rows, arguments.rounds = 6_000, 1
    arguments.rows = int(arguments.rows)
    start(arguments)
    torch.manual_seed(0)
    report = Report("profile_step", arguments)
    if "step" in arguments.parts:
        report_step(report, arguments)
    if "operations" in arguments.parts:
        report_operations(report, arguments)
    if "encode" in arguments.parts:
        X, _ = impressions(arguments.rows)
        heading = f"TableEncoder.fit_transform, {len(X):,} rows"
        report_functions(report, heading, lambda: TableEncoder().fit_transform(X))
    if "predict" in arguments.parts:
        report_predict(report, arguments)
    report.save()


if __name__ == "__main__":
    main()
