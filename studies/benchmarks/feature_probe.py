"""Seconds to train a linear head on many features: automl's, scikit-learn's, and ridge regression in closed form.

    python studies/benchmarks/feature_probe.py --samples 100000 --features 1536

The features are made up, correlated as a network's are: 128 directions of falling strength, and noise. The classes are
those of a random direction, with as much noise. Printed are seconds, the AUC on 5,000 other samples, and the iterations
of L-BFGS; then the seconds of a cross-validated score (`score_layers`). Aim: below 5 s for 100,000 samples of 1,536
features on two cores.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any
from unittest.mock import patch


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures one after the other."""
    text = __doc__ or ""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--features", type=int, default=1536)
    parser.add_argument("--strength", type=float, default=0.1, help="of the L2 penalty (default 0.1)")
    parser.add_argument("--skip-others", action="store_true", help="automl's only")
    args = parser.parse_args(arguments)

    import numpy as np
    from scipy import optimize
    from sklearn.metrics import roc_auc_score

    from automl.features.extraction import FeatureLayer
    from automl.features.probe import fit_head, score_layers

    x, y, others, truth = make_features(args.samples, args.features)

    def measure(name: str, fit: Callable[[], tuple[Any, Any]]) -> None:
        """Trains a head and prints how long that took and how good it is."""
        started = time.perf_counter()
        weight, note = fit()
        seconds = time.perf_counter() - started
        print(f"{name:24} {seconds:6.1f} s   AUC {roc_auc_score(truth, others @ weight):.4f}   {note}", flush=True)

    def fit_ours() -> tuple[Any, Any]:
        """Trains automl's."""
        results: list[Any] = []

        def minimize(*given: Any, **options: Any) -> Any:
            """Minimises, and remembers in how many iterations."""
            results.append(optimize.minimize(*given, **options))
            return results[-1]

        with patch("automl.features.probe.minimize", minimize):
            head = fit_head(x, y, 2, args.strength)
        return head.weight[1] - head.weight[0], f"{results[-1].nit} iterations"

    def fit_scikit() -> tuple[Any, Any]:
        """Trains scikit-learn's on standardised features with the same penalty: C counts samples, and one logit."""
        from sklearn.linear_model import LogisticRegression

        mean, scale = x.mean(0), x.std(0)
        model = LogisticRegression(C=2 / (args.strength * args.features), max_iter=1000)
        model.fit((x - mean) / scale, y)
        return model.coef_[0] / scale, f"{model.n_iter_[0]} iterations"

    def fit_ridge() -> tuple[Any, Any]:
        """Solves the normal equations of standardised features."""
        mean, scale = x.mean(0), x.std(0)
        z = (x - mean) / scale
        penalty = args.strength * args.features * np.eye(args.features, dtype=np.float32)
        return np.linalg.solve(z.T @ z + penalty, z.T @ (y - y.mean())) / scale, ""

    measure("automl fit_head", fit_ours)
    if not args.skip_others:
        measure("ridge, closed form", fit_ridge)
        measure("scikit-learn, L-BFGS", fit_scikit)
    started = time.perf_counter()
    (score,) = score_layers(x, y, np.arange(len(y)), [FeatureLayer("features", 0, args.features)], 2)
    print(f"{'automl score_layers':24} {time.perf_counter() - started:6.1f} s   AUC {score.score:.4f}")


def make_features(samples: int, width: int) -> tuple[Any, Any, Any, Any]:
    """Makes features (N, D) float32 and labels (N,) of samples, and of 5,000 others."""
    import numpy as np

    random = np.random.default_rng(0)
    mix = (random.standard_normal((128, width)) * np.linspace(3, 0.1, 128)[:, None]).astype(np.float32)
    direction = random.standard_normal(width).astype(np.float32)

    def draw(count: int) -> tuple[Any, Any]:
        """Draws some samples."""
        x = random.standard_normal((count, 128), dtype=np.float32) @ mix
        x += random.standard_normal((count, width), dtype=np.float32)
        score = x @ direction
        return x, (score / score.std() + random.standard_normal(count) > 0).astype(np.int64)

    return *draw(samples), *draw(5000)


if __name__ == "__main__":
    main()
