"""How Newton's iterates are steered, wherever they are computed (newton.py, small.py)."""

DESCENT = 0.3
"""μ comes down from σ_1 by this factor in each pass, or by 1.1/(N − 1) where that is more."""
CUT, DEEP = 0.85, 0.7
"""Share of μ down to which triplets are found: usually, and where curvature has to tell small distances."""
BESIDE, REST = 0.35, 0.3
"""Down to which, in units of μ, singular values beside the leading ones are taken into account; and where the
others lie: a guess, which decides the speed only."""
FIRST_DAMPING, LEAST_DAMPING, MOST_DAMPING = 1.0, 1e-3, 1.0
UNDAMPED, BOLDER = 8, 2
"""Factors by which damping falls, and by which the lowest allowed rises and falls."""
FINE = 0.03
"""The step that is left, in units of a deviation, from where on that pays: before, it changes what leads."""
CG_STEPS = 12
