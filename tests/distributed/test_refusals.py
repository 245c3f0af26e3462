"""What a distributed fit refuses, before any work is done."""

import socket
import sys

import pytest

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import ParquetImpressions
from sk_pwiser.distributed import _ray_fit, fit

pytestmark = pytest.mark.slow


@pytest.fixture
def call(cluster, log, tmp_path):
    """Return a function that fits with some arguments replaced."""

    def fit_with(**replaced):
        arguments = {
            "estimator": MultiTaskCTRCVRClassifier(max_epochs=1),
            "dataset": log.train,
            "num_workers": 2,
            "storage_path": tmp_path,
            **replaced,
        }
        return fit(arguments.pop("estimator"), arguments.pop("dataset"), **arguments)

    return fit_with


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num_workers": 500}, ValueError, "needs 500 CPU; the cluster has 2"),
        ({"num_workers": 0}, ValueError, "num_workers must be an integer >= 1; got 0"),
        ({"num_workers": 1.5}, TypeError, "num_workers must be an integer"),
        ({"max_failures": -1}, ValueError, "max_failures must be an integer >= 0"),
        ({"use_gpu": "yes"}, TypeError, "use_gpu must be True or False; got 'yes'"),
        ({"timeout": None}, TypeError, "timeout must be a number; got None"),
        ({"timeout": 0}, ValueError, "timeout must be finite and > 0; got 0"),
        ({"dataset": [[1.0]]}, TypeError, "must be a ParquetImpressions.*got list"),
        ({"estimator": "bce"}, TypeError, "must be a MultiTaskCTRCVRClassifier"),
        ({"use_gpu": True}, ValueError, "needs 2 GPU; the cluster has 0"),
        ({"storage_path": "/dev/null/x"}, NotADirectoryError, "/dev/null/x"),
        ({"resources_per_worker": {"oil": 1}}, ValueError, "needs 2 oil; the cluster"),
        ({"address": "127.0.0.1:1"}, ValueError, "connected to a Ray cluster already"),
    ],
)
def test_arguments(call, arguments, error, message):
    with pytest.raises(error, match=message):
        call(**arguments)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"warm_start": True}, "warm_start must be False"),
        ({"refit": True}, "refit must be False for training by several workers"),
        ({"checkpoint_dir": "x"}, "checkpoint_dir must be None"),
        ({"device": "cuda"}, "device='cuda' of the estimator contradicts"),
        ({"network": "dcmt"}, r"network='dcmt' has the extra losses \['correction'"),
        ({"batch_size": 1}, "batch_size=1 of the estimator is divided among num_wor"),
        ({"batch_size": 2, "stratified_batches": True}, "at least 4 with stratified_b"),
        ({"network": "ddpo"}, r"network='ddpo' has the extra losses \['teacher'"),
        ({"network": "escm2"}, r"network='escm2' has the extra losses \['correction'"),
        ({"batch_size": 0}, "'batch_size' parameter"),
    ],
)
def test_settings(call, params, message):
    with pytest.raises(ValueError, match=message):
        call(estimator=MultiTaskCTRCVRClassifier(max_epochs=1, **params))


def test_a_dataset_without_labels(call, log):
    dataset = ParquetImpressions(log.train.path_or_glob, log.features, [])
    with pytest.raises(ValueError, match="targets of the dataset is empty"):
        call(dataset=dataset)


def test_a_busy_cluster(cluster, call):
    """Another program holds a CPU for longer than the time-out."""

    @cluster.remote(num_cpus=1)
    class Other:
        def answer(self):
            return 42

    other = Other.remote()
    assert cluster.get(other.answer.remote()) == 42
    with pytest.raises(TimeoutError, match=r"not free within 1 s.*in use"):
        call(timeout=1.0)
    cluster.kill(other)


def test_an_address_where_nothing_listens():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
    with pytest.raises(ConnectionError, match=f"address='{address}' within 5 s"):
        _ray_fit._check_address(address, 5.0)


def test_a_missing_extra(monkeypatch, log, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    options = {"num_workers": 2, "storage_path": tmp_path}
    with pytest.raises(ImportError, match=r'needs ray: pip install "ray\[train\]"'):
        fit(MultiTaskCTRCVRClassifier(), log.train, **options)
