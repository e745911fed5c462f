"""Numbers of `tests/suite/logistic.rs`: scikit-learn's logistic regression on a small set. Prints Rust."""

import numpy as np
from sklearn.linear_model import LogisticRegression

N, D, C, LAMBDA = 14, 5, 3, 0.05
i, j = np.meshgrid(np.arange(N), np.arange(D), indexing="ij")
x = (np.sin(1.3 * i + 0.7 * j * (i + 1.0)) + 0.8 * (j == i % C)).astype(np.float32).astype(np.float64)
y = np.arange(N) % C
# ours: 1/N sum w CE + lambda/2 |W|^2; theirs: C sum w CE + 1/2 |W|^2
model = LogisticRegression(C=1 / (N * LAMBDA), class_weight="balanced", tol=1e-10, max_iter=100_000)
model.fit(x, y)
for name, values in (("WEIGHTS", model.coef_), ("BIAS", model.intercept_)):
    print(f"const GOLDEN_{name}: [f64; {values.size}] = [")
    for value in values.ravel():
        print(f"    {value:.9},")
    print("];")
