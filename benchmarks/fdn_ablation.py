"""The effect of the two extra terms of FDN: auxiliary heads and form of the penalty.

    python benchmarks/fdn_ablation.py --data synthetic     # needs no files
    python benchmarks/fdn_ablation.py --data engage --seeds 3

`synthetic` is the generator of the authors of FDN, written from its formulas: the
features are sines of mixtures of one source per task and a shared source. The outcomes
are turned into labels of a funnel: a row is clicked if the first outcome is in its top
tenth, and converts if the second is also in its top third. Each seed draws new data.
`engage` is KuaiRand, from the folder that SK_PWISER_DATA names; the held-out rows are
its last training day.

A row is one setting of `aux_weight` and of the penalty, on the same seeds. A cell is
the mean over the seeds, followed by the standard deviation:

- "first AUC", "second AUC": on held-out rows.
- "gain": the mean AUC over the tasks, minus that of the first row with the same seed.
- "|cosine|", "joint", "lengths": similarity of the two outputs of a pair of experts on
  held-out rows, mean over pairs: the mean absolute cosine of the two outputs of a row;
  the squared Frobenius norm of the product of the two centred, row-normalised output
  matrices over the squared number of rows; the mean product of the two lengths in a
  row. The first is 0.10 for random directions in 64 dimensions. "row" acts on the
  first, "batch" on the second, and "norm_product" on the third.
"""

import numpy as np
import torch
from _harness import aucs, begin, data_folder, make_parser, spread
from _tables import load_tables
from torch.nn import functional as F

from sk_pwiser import MultiTaskCTRCVRClassifier

COLUMNS = {
    "first AUC": 4,
    "second AUC": 4,
    "gain": 4,
    "|cosine|": 3,
    "joint": 3,
    "lengths": 2,
    "epochs": 1,
}
FORMS = ("row", "batch", "norm_product")
WIDTH = 32  # of a block of features; 512 in the paper
SETTINGS = {
    "ablation": [
        (0.0, "row", 0.0),
        (0.1, "row", 0.0),
        *((aux, form, 0.1) for aux in (0.0, 0.1) for form in FORMS),
    ],
    "weights": [
        (0.0, "row", 0.0),
        (0.0, "row", 1.0),
        (0.1, "row", 1.0),
        *((1.0, "row", weight) for weight in (0.0, 0.1, 1.0)),
        (1.0, "norm_product", 1.0),  # the code of the paper
    ],
}
# On KuaiRand the first epoch is the best: more patience gives the same weights.
PATIENCE = {"synthetic": 3, "engage": 1}


def unit_vectors(rng, n, width):
    """Return `n` centred random vectors of unit length."""
    u = rng.standard_normal((n, width))
    u -= u.mean(axis=1, keepdims=True)
    return u / np.linalg.norm(u, axis=1, keepdims=True)


def make_synthetic(n, width, seed, n_waves=10):
    """Draw features of shape (n, 3 * width) and the labels of two nested tasks."""
    rng = np.random.default_rng(seed)
    own, other, shared = unit_vectors(rng, 3, width)
    slopes, phases = rng.standard_normal((2, n_waves, 1))
    delta, gamma = rng.standard_normal((2, width))
    means = {"own": -1.0, "other": 1.0, "shared": 0.0}
    x = {name: rng.normal(mean, 1.0, (n, width)) for name, mean in means.items()}

    def outcome(z):
        return z + np.sin(slopes * z + phases).sum(axis=0)

    common = outcome(x["shared"] @ shared)
    noise = rng.normal(0.0, 0.01, (2, n))
    first = common + outcome(x["own"] @ own) + noise[0]
    second = common + outcome(x["other"] @ other) + noise[1]
    parts = own * x["own"], other * x["other"], shared * x["shared"]
    mixtures = parts[0] + parts[2], parts[1] + parts[2], sum(parts)
    angles = np.concatenate([delta * mixture + gamma for mixture in mixtures], axis=1)
    # One noise value per row is added to all features of the row.
    X = np.sin(angles) + np.cos(angles) + rng.standard_normal((n, 1))
    click = first > np.quantile(first, 0.9)
    conversion = click & (second > np.quantile(second, 2 / 3))
    return X.astype(np.float32), np.column_stack([click, conversion]).astype(int)


def load(name, arguments, seed):
    """Return training and held-out rows."""
    if name == "engage":
        return load_tables(name, data_folder(), "validation")[:4]
    X, Y = make_synthetic(arguments.rows, WIDTH, seed)
    n_train = int(0.7 * len(X))
    return X[:n_train], X[n_train:], Y[:n_train], Y[n_train:]


def predict_with_similarity(model, X):
    """Return the probabilities and the similarities of the outputs of pairs."""
    outputs = []
    network = model.net_.module_
    hook = network.experts.register_forward_hook(
        lambda _module, _inputs, output: outputs.append(output.detach())
    )
    try:
        p = model.predict_proba(X)
    finally:
        hook.remove()
    # The specific experts come before the shared ones, in the order of the pairs.
    specific, shared = torch.cat(outputs, dim=1).double().chunk(2)
    cosine = F.cosine_similarity(specific, shared, dim=2).abs().mean()
    lengths = (specific.norm(dim=2) * shared.norm(dim=2)).mean()
    s, h = (F.normalize(o - o.mean(1, keepdim=True), dim=2) for o in (specific, shared))
    products = s.transpose(1, 2) @ h / s.shape[1]
    joint = products.square().sum(dim=(1, 2)).mean()
    return p, [cosine.item(), joint.item(), lengths.item()]


def evaluate(setting, data, seed, patience):
    """Fit FDN and return the figures of `COLUMNS`, with the mean AUC as the gain."""
    aux_weight, form, weight = setting
    X, X_test, Y, Y_test = data
    model = MultiTaskCTRCVRClassifier(
        network="fdn",
        network_params={
            "aux_weight": aux_weight,
            "orthogonality": form,
            "orthogonality_weight": weight,
        },
        loss="bce",
        early_stopping="loss",
        n_iter_no_change=patience,
        random_state=seed,
    )
    model.fit(X, Y)
    p, common = predict_with_similarity(model, X_test)
    found = aucs(Y_test, p)
    return [*found, np.mean(found), *common, model.n_iter_]


def label(setting):
    aux_weight, form, weight = setting
    terms = [f"aux {aux_weight:g}"] if aux_weight else []
    terms += [f"{form} {weight:g}"] if weight else []
    return " + ".join(terms) or "neither"


def main():
    parser = make_parser(__doc__, seeds=5)
    parser.add_argument("--data", nargs="+", choices=PATIENCE, default=["synthetic"])
    parser.add_argument("--parts", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    rows = "of synthetic data"
    parser.add_argument("--rows", type=int, default=10_000, help=rows)
    arguments, report = begin("fdn_ablation", parser, rows=2_000, seeds=1)
    settings = dict.fromkeys(s for part in arguments.parts for s in SETTINGS[part])
    for name in arguments.data:
        data = [load(name, arguments, seed) for seed in range(arguments.seeds)]
        X, X_test, Y, _ = data[0]
        rates = ", ".join(f"{rate:.1%}" for rate in np.asarray(Y).mean(axis=0))
        size = f"{len(X):,} rows, {len(X_test):,} held out, {X.shape[1]} columns"
        report.text("", f"{name}: {size};")
        report.text(f"ones {rates}; {arguments.seeds} seeds; loss: bce")
        report.table(COLUMNS)
        first = None
        for setting in settings:
            pairs = zip(data, range(arguments.seeds), strict=True)
            found = [evaluate(setting, *p, PATIENCE[name]) for p in pairs]
            results = np.array(found)
            first = results[:, 2].copy() if first is None else first
            results[:, 2] -= first
            report.row(label(setting), map(spread, results.T, COLUMNS.values()))
    report.save()


if __name__ == "__main__":
    main()
