"""Hostile files of skops: no node that stands in for another one can run code."""

import io
import json
import os
import pickle
import zipfile
from itertools import count

import numpy as np
import pytest
from small_model import X, Y, small

from sk_pwiser.export import TRUSTED_TYPES

pytestmark = pytest.mark.slow

skops = pytest.importorskip("skops.io")

ESTIMATOR = TRUSTED_TYPES[0]

SCHEMA = "schema.json"


def rewritten(content, change, files=()):
    """Return a file with another schema, and further or other members."""
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        members = {name: file.read(name) for name in file.namelist()}
    schema = json.loads(members[SCHEMA])
    members |= {SCHEMA: json.dumps(change(schema) or schema), **dict(files)}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, member in members.items():
            file.writestr(name, member)
    return buffer.getvalue()


class Runs:
    """Runs a command when it is unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def text(value):
    return {
        "__class__": "str",
        "__module__": "builtins",
        "__loader__": "JsonNode",
        "content": json.dumps(value),
    }


IDS = count(1)


def node(path, loader, **content):
    module, _, name = path.rpartition(".")
    return {
        "__class__": name,
        "__module__": module,
        "__loader__": loader,
        "__id__": next(IDS),
        **content,
    }


def arguments(*values):
    content = [text(value) for value in values]
    return node("builtins.tuple", "TupleNode", content=content)


def hostile_nodes(command):
    """Return nodes that would run a command, or that a file must not have."""
    system = node("os.system", "FunctionNode")
    table = node("builtins.dict", "DictNode", content={})
    table["key_types"] = node("builtins.list", "ListNode", content=[])
    objects = node("numpy.ndarray", "NdArrayNode", type="json", shape=arguments(1))
    return {
        "call": node(
            "os.system", "ConstructorFromReduceNode", content=arguments(command)
        ),
        "function": system,
        "type": node("os.system", "TypeNode"),
        "object": node("subprocess.Popen", "ObjectNode", content=arguments(command)),
        "pickle": node("builtins.bytes", "BytesNode", file="pickle.bin"),
        "bytearray": node("builtins.bytearray", "BytearrayNode", file="pickle.bin"),
        "pickled array": node(
            "numpy.ndarray", "NdArrayNode", type="numpy", file="pickle.npy"
        ),
        "array of objects": {**objects, "content": [text(command)]},
        "array class": node("os.system", "NdArrayNode", type="numpy", file="text.npy"),
        "partial": node(
            "functools.partial",
            "PartialNode",
            content={
                "func": system,
                "args": arguments(command),
                "kwds": table,
                "namespace": table,
            },
        ),
        "methodcaller": node(
            "operator.methodcaller", "OperatorFuncNode", attrs=arguments("save", "x")
        ),
        "method": node(
            ESTIMATOR,
            "MethodNode",
            content={"func": "load", "obj": node(ESTIMATOR, "ObjectNode")},
        ),
        "dict class": {**table, "__class__": "system", "__module__": "os"},
        "list class": node("os.system", "ListNode", content=[text(command)]),
        "net": node("skorch.net.NeuralNet", "ObjectNode", content=table),
        "network": node("sk_pwiser._training._net.MultiTaskNet", "ObjectNode"),
        "unknown": node("os.system", "PickleNode", file="pickle.bin"),
        "text": text(command),
    }


def places(value):
    """Yield (container, key) of the nodes of a file, one of each list of equals."""
    items = list(value.items() if isinstance(value, dict) else enumerate(value[:1]))
    arrays = [item for item in items if str(item[0]).startswith("model.")]
    for key, item in [item for item in items if item not in arrays[1:]]:
        if isinstance(item, dict) and "__loader__" in item:
            yield value, key
        if isinstance(item, dict | list):
            yield from places(item)


@pytest.fixture(scope="module")
def content(_estimators_on_device):
    return skops.dumps(small(max_epochs=1).fit(X, Y))


def with_hostile_node(content, name, place, command):
    pickled = Runs(command)
    array = io.BytesIO()
    np.save(array, np.array([pickled], dtype=object), allow_pickle=True)
    letters = io.BytesIO()
    np.save(letters, np.array(command))
    files = {
        "pickle.bin": pickle.dumps(pickled),
        "pickle.npy": array.getvalue(),
        "text.npy": letters.getvalue(),
    }

    def change(schema):
        value, key = list(places(schema))[place]
        value[key] = hostile_nodes(command)[name]

    return rewritten(content, change, files)


def n_places(content):
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        return len(list(places(json.loads(file.read(SCHEMA)))))


def test_a_file_that_is_rewritten_unchanged_is_read(content):
    again = skops.loads(rewritten(content, lambda schema: None), TRUSTED_TYPES)
    assert again.predict_proba(X).shape == Y.shape


@pytest.mark.parametrize("name", hostile_nodes(""))
def test_no_node_of_a_file_can_run_code(content, name, tmp_path):
    ran = tmp_path / "ran"
    n = n_places(content)
    assert n > 7
    for place in range(n):
        altered = with_hostile_node(content, name, place, f"touch {ran}")
        with pytest.raises((TypeError, ValueError, KeyError)):
            skops.loads(altered, trusted=TRUSTED_TYPES)
        assert not ran.exists()


def test_the_hostile_parts_of_the_tests_do_run_code(tmp_path):
    paths = [tmp_path / name for name in ("called", "unpickled")]
    called = with_hostile_node(skops.dumps([1]), "call", 0, f"touch {paths[0]}")
    assert skops.loads(called, trusted=["os.system"]) == [0]
    pickle.loads(pickle.dumps(Runs(f"touch {paths[1]}")))
    assert all(path.exists() for path in paths)


def test_hostile_values_are_refused(content):
    """As in files of `save`, which have the same values."""
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        state = json.loads(file.read(SCHEMA))["content"]["content"]
        name = state["arrays"]["content"]["json"]["file"]
        values = json.loads(np.load(io.BytesIO(file.read(name))).tobytes())
    values["result"]["schema"]["class"] = "Popen"
    buffer = io.BytesIO()
    np.save(buffer, np.frombuffer(json.dumps(values).encode(), dtype=np.uint8))
    altered = rewritten(content, lambda schema: None, {name: buffer.getvalue()})
    with pytest.raises(ValueError, match="is not a valid file of a MultiTaskCTRCVR"):
        skops.loads(altered, trusted=TRUSTED_TYPES)


def test_files_of_another_version_are_refused(content):
    def change(schema):
        schema["content"]["content"]["sk_pwiser"] = text("99")

    with pytest.raises(ValueError, match="has version '99' of the format"):
        skops.loads(rewritten(content, change), trusted=TRUSTED_TYPES)
