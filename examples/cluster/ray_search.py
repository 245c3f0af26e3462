"""
A grid search on a cluster
==========================

scikit-learn runs searches with joblib, for which Ray has a backend. With this backend,
`n_jobs=-1` uses all CPUs of the cluster to which Ray is connected.
"""

import joblib
import ray
from ray.util.joblib import register_ray
from sklearn.model_selection import GridSearchCV

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import make_ctr_cvr
from sk_pwiser.metrics import ctcvr_auc_scorer
from sk_pwiser.model_selection import FunnelStratifiedKFold

if __name__ == "__main__":
    data = make_ctr_cvr(4_000, ctr=0.3, cvr=0.3, random_state=0)
    search = GridSearchCV(
        MultiTaskCTRCVRClassifier(max_epochs=3, random_state=0),
        {"pwiser_weight": [0.0, 0.1, 0.3]},
        scoring=ctcvr_auc_scorer,
        cv=FunnelStratifiedKFold(2, random_state=0),
        n_jobs=-1,
    )
    # ray.init(address="auto") connects to a running cluster.
    ray.init(address="local", include_dashboard=False, logging_level="ERROR")
    register_ray()
    with joblib.parallel_backend("ray"):
        search.fit(data.data, data.target)
    ray.shutdown()
    print(search.best_params_, f"AUC of conversion {search.best_score_:.3f}")
