"""THE list of phenotypes: rules that turn events into dated findings.

A phenotype is dated when its rule is first satisfied, from what was recorded up to then. It is a concept like any
other: a feature, a target's outcome or an at-risk rule may name it. `finding.py` runs the rules.
"""

from dataclasses import dataclass
from math import inf

from features.errors import WeibingError
from features.times import length


@dataclass(frozen=True, slots=True)
class Sign:
    """An event of a concept or of another phenotype; where a limit is given, one with ``at_least <= value < below``."""

    concept: str
    at_least: float = -inf
    below: float = inf

    @property
    def of_number(self) -> bool:
        """Whether only an event with a value can be this sign."""
        return self.at_least > -inf or self.below < inf

    @property
    def directions(self) -> tuple[int, ...]:
        """Whether a higher value makes it (1), unmakes it (-1), or does either."""
        return (1,) * (self.at_least > -inf or not self.of_number) + (-1,) * (self.below < inf)

    def __str__(self) -> str:
        low, high = f" ≥ {self.at_least:g}", f" < {self.below:g}"
        return self.concept + low * (self.at_least > -inf) + high * (self.below < inf)


@dataclass(frozen=True, slots=True)
class Evidence:
    """One way to satisfy a phenotype.

    Attributes
    ----------
    signs : any of which counts
    times : on how many different days a sign must be seen; of `distinct` evidence, how many of the signs
    within : the longest time from the first of them to the last
    apart : the shortest time from one to the next; a different day where absent
    given : phenotypes that must have been found too, then or before
    beside : a sign counts only on a day with one of these
    distinct : different signs are counted, not days; each as of its last event
    """

    signs: tuple[Sign, ...]
    times: int = 1
    within: str | None = None
    apart: str | None = None
    given: tuple[str, ...] = ()
    beside: tuple[Sign, ...] = ()
    distinct: bool = False

    @property
    def concepts(self) -> tuple[str, ...]:
        """Every concept and phenotype that it asks for."""
        return (*(sign.concept for sign in (*self.signs, *self.beside)), *self.given)

    def __str__(self) -> str:
        signs = " or ".join(map(str, self.signs))
        counted = f"{self.times} different of: {signs}" if self.distinct else signs
        days = f", on {self.times} days" if self.times > 1 and not self.distinct else ""
        apart = f", {self.apart} apart" if self.apart else ""
        within = f", within {self.within}" if self.within else ""
        beside = f", on a day with {' or '.join(map(str, self.beside))}" if self.beside else ""
        given = f", given {' and '.join(self.given)}" if self.given else ""
        return counted + days + apart + within + beside + given


@dataclass(frozen=True, slots=True)
class Phenotype:
    """A rule: satisfied by any of its `evidence`.

    `recurrent` findings are dated each day that the rule is satisfied anew, others once. `source` says where the rule
    is from.
    """

    name: str
    evidence: tuple[Evidence, ...]
    source: str
    recurrent: bool = False

    @property
    def concepts(self) -> tuple[str, ...]:
        """Every concept and phenotype that its rule asks for."""
        return tuple(concept for evidence in self.evidence for concept in evidence.concepts)

    @property
    def signs(self) -> tuple[str, ...]:
        """The concepts and phenotypes any of which satisfies its rule, or is one step of it."""
        return tuple(dict.fromkeys(sign.concept for evidence in self.evidence for sign in evidence.signs))

    def __str__(self) -> str:
        return "; or ".join(map(str, self.evidence))


def happened(*concepts: str) -> Evidence:
    """Any event of any of the concepts."""
    return Evidence(tuple(map(Sign, concepts)))


def seen(*signs: Sign) -> Evidence:
    """Any of the signs, once."""
    return Evidence(signs)


def at_least(concept: str, value: float) -> Sign:
    """A value of the concept, in its canonical unit, not below this one."""
    return Sign(concept, at_least=value)


def below(concept: str, value: float) -> Sign:
    """A value of the concept, in its canonical unit, below this one."""
    return Sign(concept, below=value)


def between(concept: str, low: float, high: float) -> Sign:
    """A value of the concept, in its canonical unit, not below `low` and below `high`."""
    return Sign(concept, low, high)


def repeated(*signs: Sign, days: int, within: str | None = None, apart: str | None = None) -> Evidence:
    """Any of the signs, on so many different days."""
    return Evidence(signs, days, within, apart)


# Drug classes that do not contain each other, so that a drug counts once.
DRUG_CLASSES = (
    *("thiazide", "loop_diuretic", "potassium_sparing_diuretic", "beta_blocker", "calcium_channel_blocker"),
    *("ace_inhibitor", "arb", "alpha_blocker", "central_antihypertensive", "nitrate"),
    *("insulin", "metformin", "sulfonylurea", "glinide", "alpha_glucosidase_inhibitor", "thiazolidinedione"),
    *("dpp4_inhibitor", "glp1_agonist", "sglt2_inhibitor", "statin", "other_lipid_lowering"),
    *("antiplatelet", "anticoagulant", "benzodiazepine", "z_drug", "antidepressant", "antipsychotic", "opioid"),
    *("antiepileptic", "anticholinergic", "antihistamine", "alpha_blocker_prostate", "bladder_antimuscarinic", "nsaid"),
)
# The fourteen classes of STOPPFall; reserpine, common in rural China, is one of the centrally acting.
FALL_RISK_DRUGS = (
    *("benzodiazepine", "z_drug", "sedative", "antipsychotic", "opioid", "antidepressant", "antiepileptic"),
    *("anticholinergic", "antihistamine", "diuretic", "alpha_blocker", "alpha_blocker_prostate"),
    *("central_antihypertensive", "reserpine", "vasodilator", "nitrate", "bladder_antimuscarinic"),
)
CODED_FALLS = ("fall", "injurious_fall", "hospital_stay_for_fall", "long_lie")
TOLD_FALLS = ("fall_in_text", "injurious_fall_in_text")
ANSWERS = (at_least("fell_past_year", 1), at_least("falls_past_year", 1))

CHINESE_GUIDELINE = "Chinese guidelines for the management of hypertension, 2018 revision, unchanged 2024"
WHO_CRITERIA = "WHO 1999, HbA1c added in 2011; Chinese guideline for type 2 diabetes, 2020"
KDIGO = "KDIGO 2012 clinical practice guideline for chronic kidney disease"
SPECIFICATION = "National Basic Public Health Service Specification, third edition, 2017"
EFI = "Clegg et al., Age Ageing 2016;45:353-360"
OURS = "Weibing: any of the above"

PHENOTYPES = (
    # blood pressure
    Phenotype("hypertension_coded", (happened("hypertension", "secondary_hypertension"),), "ICD-10 I10 to I15"),
    Phenotype("hypertension_treated", (happened("antihypertensive"),), "ATC C02, C03, C07, C08, C09"),
    Phenotype(
        "hypertension_measured",
        (repeated(at_least("sbp", 140), at_least("dbp", 90), days=3, within="1y"),),
        CHINESE_GUIDELINE,
    ),
    Phenotype(
        "hypertension_found", (happened("hypertension_coded", "hypertension_treated", "hypertension_measured"),), OURS
    ),
    Phenotype(
        "high_normal_pressure",
        (happened("pre_hypertension"), seen(between("sbp", 130, 140), between("dbp", 85, 90))),
        SPECIFICATION,
    ),
    Phenotype(
        "blood_pressure_uncontrolled",
        (Evidence((below("blood_pressure_controlled", 0.5),), given=("hypertension_found",)),),
        SPECIFICATION,
        recurrent=True,
    ),
    # sugar
    Phenotype("diabetes_coded", (happened("diabetes", "diabetic_emergency"),), "ICD-10 E10 to E14"),
    Phenotype("diabetes_treated", (happened("insulin", "oral_glucose_lowering", "glp1_agonist"),), "ATC A10"),
    Phenotype(
        "diabetes_measured",
        (
            repeated(at_least("glucose_fasting", 7.0), at_least("hba1c", 6.5), days=2),
            repeated(at_least("glucose", 11.1), at_least("glucose_2h", 11.1), days=2),
        ),
        WHO_CRITERIA,
    ),
    Phenotype("diabetes_found", (happened("diabetes_coded", "diabetes_treated", "diabetes_measured"),), OURS),
    Phenotype(
        "glucose_uncontrolled",
        (Evidence((below("glucose_controlled", 0.5),), given=("diabetes_found",)),),
        SPECIFICATION,
        recurrent=True,
    ),
    # kidney
    Phenotype("ckd_measured", (repeated(below("egfr", 60), days=2, apart="90d"),), f"{KDIGO}; CKD-EPI 2021"),
    Phenotype("albuminuria_measured", (repeated(at_least("uacr", 30), days=2, apart="90d"),), KDIGO),
    Phenotype(
        "ckd_found",
        (happened("ckd", "kidney_failure", "diabetic_kidney_disease", "ckd_measured", "albuminuria_measured"),),
        OURS,
    ),
    # complications of diabetes
    Phenotype(
        "kidney_complication",
        (
            happened("diabetic_kidney_disease"),
            Evidence(
                (Sign("ckd_measured"), Sign("albuminuria_measured"), Sign("kidney_failure")), given=("diabetes_found",)
            ),
        ),
        f"ICD-10 E10.2 to E14.2, N08.3; {KDIGO}",
    ),
    Phenotype("eye_complication", (happened("diabetic_retinopathy"),), "ICD-10 E10.3 to E14.3, H36.0"),
    Phenotype("nerve_complication", (happened("diabetic_neuropathy"),), "ICD-10 E10.4 to E14.4, G59.0, G63.2, G99.0"),
    Phenotype("foot_complication", (happened("diabetic_foot"),), "ICD-10 E10.5 to E14.5, I79.2"),
    Phenotype(
        "macrovascular_event",
        (Evidence(tuple(map(Sign, ("myocardial_infarction", "stroke", "heart_failure"))), given=("diabetes_found",)),),
        "ICD-10 I21, I22, I50, I60 to I64",
    ),
    Phenotype(
        "diabetes_complication_found",
        (
            happened(
                *("kidney_complication", "eye_complication", "nerve_complication", "foot_complication"),
                *("macrovascular_event", "other_diabetes_complication"),
            ),
        ),
        OURS,
    ),
    # falls
    Phenotype("fall_coded", (happened(*CODED_FALLS),), "ICD-10 W00 to W19", recurrent=True),
    Phenotype("fall_reported", (happened(*TOLD_FALLS), seen(*ANSWERS)), "free text and form answers", recurrent=True),
    Phenotype("fall_found", (happened("fall_coded", "fall_reported"),), OURS, recurrent=True),
    Phenotype(
        "injurious_fall_found",
        (
            happened("injurious_fall", "injurious_fall_in_text", "hospital_stay_for_fall"),
            Evidence((Sign("injury"), Sign("fracture")), beside=(Sign("fall"), Sign("fall_in_text"))),
        ),
        "an injury (ICD-10 S00 to T14) with an external cause (W00 to W19) on one day; or said so",
        recurrent=True,
    ),
    Phenotype(
        "hospitalised_fall_found",
        (
            happened("hospital_stay_for_fall"),
            Evidence((Sign("fall"), Sign("fall_in_text")), beside=(Sign("hospital_stay"),)),
        ),
        "a fall (ICD-10 W00 to W19) on the day of a hospital stay; or said so",
        recurrent=True,
    ),
    # drugs and frailty
    Phenotype(
        "polypharmacy_found",
        (
            happened("polypharmacy"),
            seen(at_least("medication_count", 5)),
            Evidence(tuple(map(Sign, DRUG_CLASSES)), times=5, within="180d", distinct=True),
        ),
        "five drugs or more: Masnoon et al., BMC Geriatr 2017;17:230",
    ),
    Phenotype(
        "fall_risk_drug", (happened(*FALL_RISK_DRUGS),), "STOPPFall: Seppala et al., Age Ageing 2021;50:1189-1199"
    ),
    Phenotype("frailty_mild", (seen(at_least("frailty_index", 0.12)),), EFI),
    Phenotype("frailty_moderate", (seen(at_least("frailty_index", 0.24)),), EFI),
    Phenotype("frailty_severe", (seen(at_least("frailty_index", 0.36)),), EFI),
)

BY_NAME = {phenotype.name: phenotype for phenotype in PHENOTYPES}


def described(name: str) -> str:
    """Return a phenotype's rule and source in a line; of any other concept, its name."""
    if name not in BY_NAME:
        return name
    phenotype = BY_NAME[name]
    return f"{name}: {phenotype} ({phenotype.source})"


def in_order(wanted: set[str], declared: tuple[Phenotype, ...] = PHENOTYPES) -> list[Phenotype]:
    """Return the phenotypes that are wanted and those they rest on, each after what it rests on.

    Raises
    ------
    WeibingError
        If a rule names a later phenotype, or asks for a length of time that is none.
    """
    names = [phenotype.name for phenotype in declared]
    needed = set(wanted)
    for place, phenotype in reversed(list(enumerate(declared))):
        if phenotype.name in needed:
            later = set(phenotype.concepts) & set(names[place:])
            if later:
                raise WeibingError(f'The phenotype "{phenotype.name}" rests on {", ".join(later)}, declared after it.')
            needed.update(phenotype.concepts)
    chosen = [phenotype for phenotype in declared if phenotype.name in needed]
    for evidence in (each for phenotype in chosen for each in phenotype.evidence):
        for text in filter(None, (evidence.within, evidence.apart)):
            length(text)
    return chosen
