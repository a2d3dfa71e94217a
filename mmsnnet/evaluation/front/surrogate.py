"""What stitches that are not scored may be worth: a Gaussian process over features of routes.

Rasmussen and Williams, "Gaussian Processes for Machine Learning" (MIT Press 2006), chapter 2, as
scikit-learn has it: a Matern kernel of smoothness 5/2, one length for all features, and noise.
"""

from __future__ import annotations

import warnings

import numpy as np

#: Length of the kernel before any stitch is scored, and where its fit begins.
_LENGTH = 3.0


def check_installed() -> None:
    """Refuse to begin without scikit-learn.

    Raises:
        ValueError: If it is missing; how to install it is said.
    """
    try:
        import sklearn.gaussian_process  # noqa: F401
    except ImportError:
        raise ValueError(
            "--budget-evals needs scikit-learn: pip install 'mmsnnet[guide]', or pip install "
            'scikit-learn.'
        ) from None


def prior_covariance(features: np.ndarray) -> np.ndarray:
    """Covariance (S, S) of the metric of stitches before any is scored, 1 on the diagonal.

    Args:
        features: (S, F), see :func:`~.route_features.route_features`.
    """
    from sklearn.gaussian_process.kernels import Matern

    return Matern(_LENGTH, nu=2.5)(features)


def draw_values(
    features: np.ndarray, values: np.ndarray, num_draws: int, seed: int
) -> np.ndarray:
    """Draws of the metric of all stitches, given those of some.

    Args:
        features: (S, F), see :func:`~.route_features.route_features`.
        values: (S,), NaN for those that are not known.
        num_draws: Number D of draws.
        seed: Of the draws and of the starts of the fit.

    Returns:
        (D, S); known values are the same in all draws.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    known = np.isfinite(values)
    draws = np.repeat(values[None], num_draws, 0)
    if known.all():
        return draws
    kernel = ConstantKernel(1.0, (1e-2, 1e2)) * Matern(_LENGTH, (0.3, 30.0), nu=2.5)
    model = GaussianProcessRegressor(
        kernel + WhiteKernel(1e-2, (1e-4, 1.0)),
        normalize_y=True,
        n_restarts_optimizer=2,
        random_state=seed,
    )
    with warnings.catch_warnings():
        # A length at its bound is an answer: a feature space of few known stitches is flat.
        warnings.simplefilter('ignore', ConvergenceWarning)
        model.fit(features[known], values[known])
    draws[:, ~known] = model.sample_y(features[~known], num_draws, random_state=seed).T
    return draws
