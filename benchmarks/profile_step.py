"""The parts of a training step, and the operators of torch with the most time.

    python benchmarks/profile_step.py
    python benchmarks/profile_step.py --parts step operations --param loss=pwiser
    python benchmarks/profile_step.py --device cuda --batch 65536

The MMoE of `train_speed.py`, or the estimator with the parameters of `--param`, in the
second of two epochs.

- `step`: the time of the parts of a step, compared with the bare loop. Timers run
  around the batches, the modules of the network, the loss, the backward pass and the
  optimiser of a `fit`; `all else` is the rest of an epoch: the loops of skorch and of
  this package. On CUDA every timer waits for the device, so that the parts are right
  and their sum is longer than a step.
- `operations`: the operators of torch with the most time, from torch.profiler.
"""

import time
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from unittest import mock

import numpy as np
import torch
from _harness import begin, count, literal_pairs, make_parser, synchronize
from _peers import BareMMoE, bare_loss
from _tables import CARDINALITIES, impressions, prepare
from skorch.callbacks import Callback
from train_speed import own_model

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
    size, params = (arguments.batch, arguments.device, 2), arguments.own
    whole = own_model(*size, **params).fit(X, Y).history_[-1, "dur"]
    timer = PartTimer(arguments.device)
    callback = AddTimers(timer)
    model = own_model(*size, **{**params, "callbacks": [callback]})
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


PARTS = {"step": report_step, "operations": report_operations}


def main():
    parser = make_parser(__doc__, rounds=3)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--rows", type=count, default=10**5)
    parser.add_argument("--batch", type=int, default=2048)
    help_text = "parameters of the estimator"
    parser.add_argument("--param", nargs="*", default=[], help=help_text)
    arguments, report = begin("profile_step", parser, rows=6_000, rounds=1)
    arguments.own = literal_pairs(arguments.param)
    torch.manual_seed(0)
    for part in arguments.parts:
        PARTS[part](report, arguments)
    report.save()


if __name__ == "__main__":
    main()
