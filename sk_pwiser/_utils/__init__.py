"""Shared: parameter checks, optional packages, registry, random numbers, threads."""

from sk_pwiser._utils._checks import (
    DocLink,
    accept_any_case_of_y,
    aligned,
    build,
    check_base_init,
    check_boolean,
    check_choice,
    check_integer,
    check_names,
    check_number,
    check_signature,
    did_you_mean,
    equal,
    import_extra,
    is_iterable,
    nearest,
    resolve,
    warn_user,
)
from sk_pwiser._utils._random import (
    Generators,
    active,
    draws_globally,
    dropout,
    generator_on,
    global_states,
    seeded_globally,
    set_global_states,
)
from sk_pwiser._utils._task_tree import (
    CHAIN,
    chain_parents,
    ends_of_path,
    parents_by_name,
    path_through,
    path_to,
    read_task_parents,
    task_paths,
)
from sk_pwiser._utils._tensors import (
    at_least_float32,
    conditional_labels,
    labels_of_parents,
    widest,
    widest_float,
)
from sk_pwiser._utils._threads import in_background, limited_threads, num_threads
