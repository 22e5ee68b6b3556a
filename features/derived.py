"""Values computed from other values of the same resident as the records are read.

Each is dated at the value it is computed from, uses only what was recorded up to then, and joins the values of its
concept that were recorded as such.
"""

from features.compiled import compiled


@compiled
def egfr_ckd_epi_2021(creatinine_umol_l: float, age_years: float, female: float) -> float:
    """Estimated glomerular filtration rate in mL/min/1.73 m² (CKD-EPI 2021, creatinine, without race).

    References
    ----------
    Inker et al., N Engl J Med 2021;385:1737-1749.
    """
    kappa = 0.7 if female > 0.5 else 0.9
    alpha = -0.241 if female > 0.5 else -0.302
    ratio = creatinine_umol_l / 88.4 / kappa
    sex = 1.012 if female > 0.5 else 1.0
    return float(142.0 * min(ratio, 1.0) ** alpha * max(ratio, 1.0) ** -1.2 * 0.9938**age_years * sex)


@compiled
def body_mass_index(weight_kg: float, height_cm: float) -> float:
    """Body mass index in kg/m²."""
    return weight_kg / (height_cm / 100.0) ** 2
