"""
Text as a sparse table
======================

Counting or hashing turns the words of a search query into columns of a sparse matrix.
In a pipeline that takes text, the matrix stays sparse from the vectorizer to the
network.
"""

# %%
# Queries
# -------
#
# A query has two to six of 2,000 words; few words are frequent. Each word has an
# effect on clicks and a related effect on conversions.

import numpy as np
import pandas as pd

rng = np.random.default_rng(0)
n, n_words = 16_000, 2_000
words = np.array([f"word{j}" for j in range(n_words)])
share = 1 / np.arange(10, n_words + 10)
on_click = rng.standard_normal(n_words)
on_conversion = 0.5 * on_click + rng.standard_normal(n_words)
lengths = rng.integers(2, 7, n)
drawn = rng.choice(n_words, (n, 6), p=share / share.sum())
drawn = [row[:length] for row, length in zip(drawn, lengths, strict=True)]
queries = [" ".join(words[row]) for row in drawn]
ctr = 1 / (1 + np.exp(2 - np.array([on_click[row].sum() for row in drawn])))
cvr = 1 / (1 + np.exp(1 - np.array([on_conversion[row].sum() for row in drawn])))
click = rng.uniform(size=n) < ctr
conversion = click & (rng.uniform(size=n) < cvr)
Y = pd.DataFrame({"click": click, "conversion": conversion}).astype(int)
train, test = slice(n // 2), slice(n // 2, None)
print(queries[:3])

# %%
# Counting words
# --------------
#
# The table has one column per word of the training rows, and most entries are zero.

from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer
from sklearn.pipeline import make_pipeline

from sk_pwiser import MultiTaskCTRCVRClassifier

params = {"max_epochs": 6, "random_state": 0}
counting = make_pipeline(CountVectorizer(), MultiTaskCTRCVRClassifier(**params))
counting.fit(queries[train], Y[train])
matrix = counting[:-1].transform(queries[train])
print(repr(matrix))
print(f"{matrix.nnz / matrix.shape[0]:.1f} stored values per row")

# %%
# Hashing words
# -------------
#
# `HashingVectorizer` needs no vocabulary: a hash assigns each word to one of a fixed
# number of columns. With few columns, words with different effects share one.

from sk_pwiser.metrics import ctcvr_auc_scorer, ctr_auc_scorer

scorers = {"click": ctr_auc_scorer, "conversion": ctcvr_auc_scorer}
sizes = 2 ** np.array([5, 7, 9, 11, 13])
hashed = {task: [] for task in scorers}
for n_features in sizes:
    pipeline = make_pipeline(
        HashingVectorizer(n_features=n_features, alternate_sign=False, norm=None),
        MultiTaskCTRCVRClassifier(**params),
    ).fit(queries[train], Y[train])
    for task, scorer in scorers.items():
        hashed[task].append(scorer(pipeline, queries[test], Y[test]))

# %%
# The picture
# -----------
#
# The dashed lines are the AUC with one column per word, the dotted lines the AUC of the
# true probabilities.

import matplotlib.pyplot as plt
from sklearn.metrics import roc_auc_score

true = {"click": ctr, "conversion": ctr * cvr}
_, ax = plt.subplots(figsize=(6.5, 4), layout="constrained")
for k, (task, scorer) in enumerate(scorers.items()):
    counted = scorer(counting, queries[test], Y[test])
    best = roc_auc_score(Y[task][test], true[task][test])
    print(f"{task}: counted {counted:.3f}, hashed {np.round(hashed[task], 3)}")
    ax.plot(sizes, hashed[task], marker="o", color=f"C{k}", label=task)
    ax.axhline(counted, color=f"C{k}", linestyle="--")
    ax.axhline(best, color=f"C{k}", linestyle=":")
ax.set_xscale("log", base=2)
ax.set(xlabel="Columns of the hashed table", ylabel="AUC")
ax.legend()
plt.show()

# %%
# With 8,192 columns, hashing comes close to one column per word, and with fewer it
# loses AUC. Both are far from the true probabilities, since most words occur in few
# rows.
