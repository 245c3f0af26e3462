"""What changed between two models: `delta`, its file, and `Scorer.apply`."""

import copy
import pickle
import threading

import numpy as np
import pytest

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.calibration import FunnelCalibrator
from sk_pwiser.export import Delta, Scorer, delta
from sk_pwiser.export._delta import RowChanges

pd = pytest.importorskip("pandas")

pytestmark = pytest.mark.slow

N_IDS = 400


def draw(n_rows, seed, *, newest=N_IDS):
    """Return rows of a log, whose ids are text and lists of numbers."""
    rng = np.random.default_rng(seed)
    item = rng.integers(newest // 4, newest, n_rows)
    recent = [rng.integers(0, newest, rng.integers(0, 4)).tolist() for _ in item]
    X = pd.DataFrame(
        {
            "item": [f"item {value}" for value in item],
            "market": rng.choice(["a", "b", "c"], n_rows),
            "recent": recent,
            "price": rng.normal(size=n_rows),
        }
    )
    click = rng.random(n_rows) < 0.2 + 0.3 * (item % 3 == 0)
    conversion = click & (rng.random(n_rows) < 0.3)
    Y = pd.DataFrame({"click": click, "conversion": conversion}).astype(int)
    return X, Y


def fitted(**params):
    params = {"encoding_params": {"grow_vocabulary": True}, **params}
    model = MultiTaskCTRCVRClassifier(max_epochs=2, random_state=0, **params)
    return model.fit(*draw(3_000, 0))


def updated(model, seed=1, newest=N_IDS + 40):
    return copy.deepcopy(model).partial_fit(*draw(150, seed, newest=newest))


@pytest.fixture(scope="module")
def old():
    return fitted()


@pytest.fixture(scope="module")
def new(old):
    return updated(old)


ROWS = draw(200, 5, newest=N_IDS + 60)[0].to_dict("records")


def scores(model):
    return Scorer(model, runtime="torch")(ROWS)


def test_a_scorer_predicts_as_one_of_the_new_model(old, new, tmp_path):
    path = tmp_path / "day.delta"
    delta(old, new).save(path)
    scorer = Scorer(old, runtime="torch")
    before = scorer(ROWS)
    assert scorer.apply(path) is scorer
    np.testing.assert_array_equal(scorer(ROWS), scores(new))
    assert (before != scorer(ROWS)).mean() > 0.9


def test_the_next_day_follows_and_no_other_one(old, new):
    third = updated(new, seed=2, newest=N_IDS + 60)
    first_day, second_day = delta(old, new), delta(new, third)
    scorer = Scorer(old, runtime="torch")
    with pytest.raises(ValueError, match=r"leads from model \w{8} to \w{8}; the model"):
        scorer.apply(second_day)
    np.testing.assert_array_equal(scorer(ROWS), scores(old))
    scorer.apply(first_day)
    with pytest.raises(ValueError, match="it is the new one already"):
        scorer.apply(first_day)
    np.testing.assert_array_equal(scorer.apply(second_day)(ROWS), scores(third))


def test_a_loaded_model_and_a_pickled_scorer_have_the_same_deltas(old, new, tmp_path):
    path = tmp_path / "model"
    old.save(path)
    loaded = MultiTaskCTRCVRClassifier.load(path)
    assert delta(loaded, new).old == delta(old, new).old
    scorer = pickle.loads(pickle.dumps(Scorer(loaded, runtime="torch")))
    np.testing.assert_array_equal(scorer.apply(delta(old, new))(ROWS), scores(new))


@pytest.mark.parametrize("by", [None, "market"])
def test_calibrated_models(old, new, by):
    calibrators = [
        FunnelCalibrator(model, by=by).fit(*draw(1_500, seed, newest=newest))
        for model, seed, newest in [(old, 3, N_IDS), (new, 4, N_IDS + 40)]
    ]
    scorer = Scorer(calibrators[0], runtime="torch").apply(delta(*calibrators))
    np.testing.assert_array_equal(scorer(ROWS), scores(calibrators[1]))
    # From a model to its calibrated form.
    scorer = Scorer(old, runtime="torch").apply(delta(old, calibrators[0]))
    np.testing.assert_array_equal(scorer(ROWS), scores(calibrators[0]))


def test_values():
    X, Y = draw(2_000, 0)
    Y = Y.assign(spend=np.where(Y["conversion"] == 1, 5 + X["price"].abs(), 0.0))
    model = MultiTaskCTRCVRClassifier(
        max_epochs=2, random_state=0, value_tasks={"spend": "conversion"}
    )
    old = model.fit(X, Y)
    new = copy.deepcopy(old).partial_fit(X[:200], Y[:200].assign(spend=2 * Y["spend"]))
    scorer = Scorer(old, runtime="torch").apply(delta(old, new))
    expected = Scorer(new, runtime="torch").predict_value(ROWS)
    np.testing.assert_array_equal(scorer.predict_value(ROWS), expected)


def test_reasons_follow_the_model(old, new):
    background = draw(8, 6)[0]
    arguments = {"runtime": "torch", "explain": True, "background": background}
    scorer = Scorer(old, **arguments).apply(delta(old, new))
    _, reasons = scorer.explain(ROWS[:3])
    _, expected = Scorer(new, **arguments).explain(ROWS[:3])
    np.testing.assert_array_equal(reasons.contributions, expected.contributions)
    np.testing.assert_array_equal(reasons.base_values, expected.base_values)


def test_with_onnx(old, new):
    pytest.importorskip("onnxruntime")
    scorer = Scorer(old, runtime="onnx").apply(delta(old, new))
    np.testing.assert_array_equal(scorer(ROWS), Scorer(new, runtime="onnx")(ROWS))


def test_a_day_is_a_small_share_of_the_file(tmp_path):
    n_ids = 20_000
    old = fitted().fit(*draw(60_000, 0, newest=n_ids))
    new = copy.deepcopy(old).partial_fit(*draw(600, 1, newest=n_ids + 100))
    new.save(tmp_path / "model")
    delta(old, new).save(tmp_path / "delta")
    size, whole = ((tmp_path / name).stat().st_size for name in ("delta", "model"))
    assert size < 0.1 * whole


def test_damaged_files_change_nothing(old, new, tmp_path):
    path = tmp_path / "day.delta"
    delta(old, new).save(path)
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    scorer = Scorer(old, runtime="torch")
    with pytest.raises(ValueError, match="is damaged or was altered"):
        scorer.apply(path)
    old.save(path)
    with pytest.raises(ValueError, match=r"is not a file of Delta\.save"):
        scorer.apply(path)
    np.testing.assert_array_equal(scorer(ROWS), scores(old))
    altered = delta(old, new)
    altered._arrays["rows.served.weights.towers.0.output.bias"] = np.ones(
        1, dtype=np.float32
    )
    name = max(
        (name for name in altered._arrays if name.startswith("rows.")),
        key=lambda name: altered._arrays[name].nbytes,
    )
    altered._arrays[name] = altered._arrays[name] + 1
    with pytest.raises(ValueError, match="its result is not the new model"):
        scorer.apply(altered)
    np.testing.assert_array_equal(scorer(ROWS), scores(old))


def test_requests_during_a_change_are_answered_by_one_of_the_models(old, new):
    scorer = Scorer(old, runtime="torch")
    possible = [scores(old).tobytes(), scores(new).tobytes()]
    answers = []
    stop = threading.Event()

    def serve():
        while not stop.is_set():
            answers.append(scorer(ROWS).tobytes())

    threads = [threading.Thread(target=serve) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        scorer.apply(delta(old, new))
        scorer.apply(delta(new, old))
    stop.set()
    for thread in threads:
        thread.join()
    assert set(answers) <= set(possible)


def test_a_network_of_ones_own_cannot_be_saved(old):
    class Own(type(old.net_.module_)):
        pass

    model = fitted(network=Own)
    with pytest.raises(TypeError, match="cannot be saved"):
        delta(model, model)


def test_repr_says_how_large_it_is(old, new):
    change = delta(old, new)
    assert f"{change.nbytes:,} bytes" in repr(change)
    assert isinstance(change, Delta)
    assert delta(old, old).nbytes < 0.1 * change.nbytes


@pytest.mark.parametrize("seed", range(20))
def test_rows_that_move_appear_and_go(seed):
    rng = np.random.default_rng(seed)
    shape = (rng.integers(0, 50), *[(), (3,), (0,), (2, 2)][seed % 4])
    dtype = [np.float32, np.uint8, np.int64, bool, np.float16][seed % 5]
    old = rng.integers(0, 4, shape).astype(dtype)
    rows = rng.integers(0, max(len(old), 1), rng.integers(0, 60))
    new = old[rows] if len(old) else old
    new = np.concatenate([new, rng.integers(0, 4, (5, *shape[1:])).astype(dtype)])
    new = new[np.sort(rng.permutation(len(new)))] if seed % 2 else new[::-1]
    changes = RowChanges.between(old, new)
    restored = changes.applied_to(old)
    assert restored.dtype == new.dtype
    np.testing.assert_array_equal(restored, new)
    other = old.astype(np.float64)
    np.testing.assert_array_equal(RowChanges.between(other, new).applied_to(other), new)


def test_signs_of_zero_and_missing_numbers_are_kept():
    old = np.array([0.0, -0.0, np.nan, 1.0], dtype=np.float32)
    new = old[[1, 0, 2, 2]]
    restored = RowChanges.between(old, new).applied_to(old)
    np.testing.assert_array_equal(restored.view(np.int32), new.view(np.int32))


@pytest.mark.parametrize("runs", [[[0, 3]] * 1000, [[0, 4], [0, -1]], [[0, 9]]])
def test_rows_that_a_delta_repeats_are_refused(runs):
    """A file of some kilobytes would take any memory."""
    changes = RowChanges(runs=np.array(runs, np.int32), new_rows=np.zeros((0, 2)))
    with pytest.raises(ValueError, match="it makes"):
        changes.applied_to(np.ones((4, 2)))
