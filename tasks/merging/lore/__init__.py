"""LoRE's convex problem and its solvers: matrices in, low-rank factors and a proven duality gap out.

Minimise Σ ½‖z + δ_i − B_i‖² + penalty(δ_i) over z and δ_i, where B_i = θ_i − mean(θ) and z = θ_0 − mean(θ)
(Liu et al. 2025, Algorithm 1).
"""
