"""THE list of features: what Weibing knows about a resident at an index time.

One declaration serves a million residents and one. Its version is part of every model that was trained on it. What is
in it, in words and in both languages, is in `docs/features.md`, which `catalogue.py` writes.

It holds no name, no village or township, no ethnicity, doctor or insurance number, and nothing of the law's special
categories unless a county switches them on (see :func:`declared`).
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping

from features.errors import WeibingError, did_you_mean
from features.measures import (
    Feature,
    Measure,
    active,
    age,
    count,
    daily_variability,
    ever,
    latest,
    maximum,
    mean,
    minimum,
    night_to_day,
    per_day,
    share_of_days,
    since,
    since_first,
    slope,
    standard_deviation,
    static,
    summed,
    total,
    variation,
)
from features.phenotypes import DRUG_CLASSES

# The environment variable with which a county takes in SPECIAL.
SWITCH = "WEIBING_SPECIAL_CATEGORIES"

# A drug dispensed for a month or two is in use for half a year after, so that a late refill is no pause.
IN_USE = "180d"


class Profile:
    """A declaration of features, in order.

    Parameters
    ----------
    features
        No two of the same name.
    special_categories
        Whether concepts of the law's special categories (kind `special`) may be among their concepts.

    Raises
    ------
    WeibingError
        If two features bear the same name, or a total sums a feature that is not there or is itself a total.
    """

    def __init__(self, *features: Feature, special_categories: bool = False) -> None:
        self.features = features
        self.special_categories = special_categories
        self.names = [feature.name for feature in features]
        twice = [name for name, times in Counter(self.names).items() if times > 1]
        if twice:
            raise WeibingError(f"The profile declares {', '.join(twice)} more than once.")
        for feature in features:
            self._check_parts(feature)

    @property
    def version(self) -> str:
        """A fingerprint of the declaration, twelve hexadecimal digits."""
        return hashlib.sha256(repr(self.features).encode()).hexdigest()[:12]

    def also(self, features: Iterable[Feature]) -> "Profile":
        """Return a profile with these features behind its own."""
        return Profile(*self.features, *features, special_categories=self.special_categories)

    def __getitem__(self, name: str) -> Feature:
        if name not in self.names:
            raise WeibingError(f'The profile has no feature "{name}".{did_you_mean(name, self.names)}')
        return self.features[self.names.index(name)]

    def __len__(self) -> int:
        return len(self.features)

    def _check_parts(self, feature: Feature) -> None:
        for part in feature.of:
            if self[part].measure is Measure.TOTAL:
                raise WeibingError(
                    f'The feature "{feature.name}" sums "{part}", which is a sum itself. Name its parts.'
                )


# Whom each disease is counted for once: no part of another one of the list.
CHRONIC_CONDITIONS = (
    *("hypertension", "diabetes", "dyslipidaemia", "ischaemic_heart_disease", "heart_failure", "atrial_fibrillation"),
    *("stroke", "peripheral_artery_disease", "ckd", "copd", "cancer", "dementia", "depression", "parkinson"),
    *("osteoporosis", "arthritis", "visual_impairment", "hearing_impairment", "thyroid_disease", "anaemia"),
)

# The fourteen classes of STOPPFall (Seppala et al., Age Ageing 2021;50:1189-1199).
FALL_RISK_CLASSES = (
    *("benzodiazepine", "z_drug", "antipsychotic", "opioid", "antidepressant", "antiepileptic", "anticholinergic"),
    *("antihistamine", "diuretic", "alpha_blocker", "alpha_blocker_prostate", "central_antihypertensive"),
    *("vasodilator", "bladder_antimuscarinic"),
)

# Items of the Chinese fall scale of 2011 that come and go.
PASSING_CONDITIONS = (
    *("delirium", "agitation", "clouded_consciousness", "urinary_frequency", "urinary_catheter", "insomnia"),
    *("wakes_often", "sleepwalking", "drug_or_alcohol_withdrawal", "hypoxia"),
)
# Answers to Stay Independent beside those that other forms ask for as well.
STAY_INDEPENDENT_ANSWERS = (
    *("holds_furniture", "pushes_up_to_stand", "trouble_with_steps", "rushes_to_toilet", "numb_feet"),
    *("drugs_cause_dizziness", "drugs_for_sleep_or_mood", "often_sad"),
)
# Drugs of the same scale that are in none of the classes above.
FALL_SCALE_DRUGS = ("cardiovascular_drug", "anaesthetic", "withdrawal_treatment", "new_drug")

# Groups of classes, which a county's records may name where they do not name the class.
DRUG_GROUPS = ("antihypertensive", "diuretic", "vasodilator", "oral_glucose_lowering", "sedative", "reserpine")


def in_use(drugs: Iterable[str]) -> list[Feature]:
    """Return whether each drug is in use."""
    return [active(drug, within=IN_USE) for drug in drugs]


PROFILE = Profile(
    # who
    age(),
    static("female"),
    latest("education"),
    latest("rural"),
    latest("living_alone"),
    latest("distance_to_clinic"),
    ever("minimum_living_allowance"),
    static("family_history_hypertension"),
    *(ever(concept) for concept in ("family_history_diabetes", "family_history_stroke")),
    # how they live
    latest("smoking"),
    count("smoking"),
    since("smoking"),
    since_first("smoking"),
    latest("cigarettes_per_day"),
    latest("drinking"),
    latest("liquor_per_day"),
    latest("exercise"),
    latest("salt_intake"),
    maximum("medication_adherence", within="1y"),
    # blood pressure
    latest("sbp"),
    mean("sbp"),
    mean("sbp", within="1y"),
    mean("sbp", within="2y"),
    mean("sbp", within="5y"),
    minimum("sbp", within="2y"),
    minimum("sbp", within="5y"),
    minimum("sbp"),
    maximum("sbp", within="1y"),
    maximum("sbp", within="2y"),
    maximum("sbp", within="5y"),
    maximum("sbp"),
    standard_deviation("sbp", within="2y"),
    standard_deviation("sbp", within="5y"),
    variation("sbp", within="2y"),
    slope("sbp", within="2y"),
    slope("sbp", within="5y"),
    count("sbp", within="1y"),
    count("sbp", within="2y"),
    count("sbp", within="5y"),
    count("sbp"),
    since("sbp"),
    since_first("sbp"),
    latest("dbp"),
    mean("dbp", within="1y"),
    mean("dbp", within="5y"),
    minimum("dbp", within="2y"),
    maximum("dbp", within="2y"),
    standard_deviation("dbp", within="2y"),
    slope("dbp", within="5y"),
    latest("pulse_pressure"),
    mean("pulse_pressure", within="2y"),
    mean("blood_pressure_controlled", within="1y"),
    ever("high_normal_pressure"),
    latest("heart_rate"),
    # at home, and what is worn
    mean("home_sbp", within="90d"),
    daily_variability("home_sbp", within="90d"),
    night_to_day("home_sbp", within="90d"),
    share_of_days("home_sbp", within="90d"),
    mean("home_dbp", within="90d"),
    daily_variability("home_dbp", within="90d"),
    mean("home_glucose", within="90d"),
    mean("wearable_heart_rate", within="30d"),
    per_day("steps", within="30d"),
    per_day("sleep_hours", within="30d"),
    daily_variability("sleep_hours", within="30d"),
    share_of_days("worn_hours", within="30d"),
    # body
    latest("height"),
    latest("bmi"),
    slope("bmi", within="5y"),
    latest("weight"),
    slope("weight", within="2y"),
    latest("waist"),
    # sugar
    latest("glucose"),
    latest("glucose_fasting"),
    since_first("glucose_fasting"),
    mean("glucose_fasting", within="2y"),
    maximum("glucose_fasting", within="5y"),
    variation("glucose_fasting", within="2y"),
    slope("glucose_fasting", within="5y"),
    latest("hba1c"),
    mean("hba1c", within="2y"),
    maximum("hba1c", within="5y"),
    variation("hba1c", within="5y"),
    slope("hba1c", within="5y"),
    since("hba1c"),
    mean("glucose_controlled", within="1y"),
    maximum("hypoglycaemia", within="1y"),
    # kidney
    latest("creatinine"),
    since_first("creatinine"),
    latest("egfr"),
    mean("egfr", within="2y"),
    minimum("egfr", within="5y"),
    slope("egfr", within="5y"),
    latest("uacr"),
    maximum("uacr", within="5y"),
    slope("uacr", within="5y"),
    latest("uacr_stage"),
    latest("urine_albumin"),
    latest("urine_protein"),
    latest("uric_acid"),
    # lipids, liver, blood
    latest("cholesterol"),
    mean("cholesterol", within="5y"),
    latest("hdl"),
    mean("hdl", within="5y"),
    minimum("hdl"),
    maximum("hdl"),
    standard_deviation("hdl"),
    slope("hdl"),
    slope("hdl", within="5y"),
    count("hdl", within="1y"),
    count("hdl", within="2y"),
    count("hdl", within="5y"),
    count("hdl"),
    since("hdl"),
    since_first("hdl"),
    latest("ldl"),
    mean("ldl", within="5y"),
    latest("triglycerides"),
    mean("triglycerides", within="5y"),
    latest("non_hdl"),
    mean("non_hdl", within="5y"),
    latest("triglycerides_to_hdl"),
    latest("fib4"),
    mean("fib4", within="5y"),
    maximum("fib4"),
    count("fib4"),
    since("fib4"),
    since_first("fib4"),
    latest("haemoglobin"),
    latest("white_cells"),
    latest("homocysteine"),
    # eyes, feet, heart
    latest("visual_acuity_left"),
    latest("visual_acuity_right"),
    maximum("fundus_abnormal", within="5y"),
    since("eye_examination"),
    maximum("dorsalis_pedis_pulse", within="2y"),
    maximum("foot_sensation_lost", within="2y"),
    since("foot_examination"),
    latest("ankle_brachial_index"),
    # conditions
    since_first("hypertension"),
    since_first("diabetes"),
    since_first("dyslipidaemia"),
    since("myocardial_infarction"),
    since("angina"),
    since("heart_failure"),
    since("stroke"),
    since("atrial_fibrillation"),
    ever("hypertension"),
    ever("hypertension_found"),
    ever("hypertensive_heart_disease"),
    ever("hypertensive_kidney_disease"),
    ever("diabetes"),
    ever("diabetes_found"),
    ever("type_1_diabetes"),
    ever("prediabetes"),
    ever("gestational_hypertension"),
    ever("gestational_diabetes"),
    ever("dyslipidaemia"),
    ever("ischaemic_heart_disease"),
    ever("myocardial_infarction"),
    ever("angina"),
    ever("coronary_revascularisation"),
    ever("heart_failure"),
    ever("cardiomyopathy"),
    ever("valve_disease"),
    ever("stroke"),
    ever("atrial_fibrillation"),
    ever("arrhythmia"),
    ever("peripheral_artery_disease"),
    ever("fatty_liver"),
    since_first("fatty_liver"),
    ever("ckd"),
    ever("ckd_found"),
    ever("kidney_failure"),
    ever("diabetic_kidney_disease"),
    ever("diabetic_retinopathy"),
    ever("diabetic_neuropathy"),
    ever("diabetic_foot"),
    ever("other_diabetes_complication"),
    ever("diabetic_emergency"),
    ever("gout"),
    ever("liver_disease"),
    ever("skin_ulcer"),
    ever("thyroid_disease"),
    ever("anaemia"),
    ever("copd"),
    ever("cancer"),
    ever("dementia"),
    ever("cognitive_impairment"),
    ever("depression"),
    ever("parkinson"),
    ever("osteoporosis"),
    ever("arthritis"),
    ever("visual_impairment"),
    ever("blindness"),
    ever("hearing_impairment"),
    ever("dizziness"),
    ever("chest_pain", within="1y"),
    ever("syncope"),
    ever("gait_problem"),
    ever("incontinence"),
    ever("hypotension"),
    ever("walking_aid"),
    ever("needs_help_walking"),
    ever("artificial_limb"),
    ever("amputation"),
    ever("neurological_disease"),
    ever("sensory_aphasia"),
    ever("other_sensory_loss"),
    ever("faecal_incontinence"),
    ever("sleep_disturbance"),
    *(ever(concept, within="1y") for concept in PASSING_CONDITIONS),
    ever("numbness", within="1y"),
    total("chronic_condition_count", "chronic_conditions", [ever(concept) for concept in CHRONIC_CONDITIONS]),
    # falls
    count("fall", within="1y"),
    count("fall", within="3y"),
    since("fall"),
    count("fall_found", within="1y"),
    count("fall_found", within="3y"),
    since("fall_found"),
    latest("fell_past_year"),
    latest("falls_past_year"),
    ever("fall_history"),
    count("injurious_fall_found", within="3y"),
    ever("hospitalised_fall_found"),
    ever("fracture"),
    ever("fragility_fracture"),
    latest("fear_of_falling"),
    latest("unsteady_walking"),
    *(latest(answer) for answer in STAY_INDEPENDENT_ANSWERS),
    latest("stay_independent_score"),
    latest("fall_scale_2011_score"),
    # function, mind and frailty
    latest("timed_up_and_go"),
    slope("timed_up_and_go", within="5y"),
    latest("grip_strength"),
    slope("grip_strength", within="5y"),
    latest("gait_speed"),
    latest("one_leg_stand"),
    latest("sit_and_reach"),
    latest("adl_score"),
    latest("adl_moving"),
    latest("self_rated_health"),
    latest("cognitive_screen"),
    latest("mmse"),
    latest("emotional_screen"),
    latest("geriatric_depression_score"),
    latest("phq9"),
    latest("pain_score"),
    latest("bone_density_t_score"),
    latest("frailty_index"),
    latest("frailty_assessable"),
    # drugs
    *in_use(DRUG_GROUPS),
    *in_use(DRUG_CLASSES),
    *in_use(FALL_SCALE_DRUGS),
    total("drug_class_count", "drug_classes", in_use(DRUG_CLASSES)),
    total("fall_risk_drug_class_count", "fall_risk_drug", in_use(FALL_RISK_CLASSES)),
    latest("medication_count"),
    count("antihypertensive", within="1y"),
    since_first("antihypertensive"),
    latest("antihypertensive_count"),
    # contacts
    count("examination", within="3y"),
    since("examination"),
    since_first("examination"),
    count("outpatient_visit", within="1y"),
    count("follow_up_visit", within="1y"),
    since("follow_up_visit"),
    count("missed_follow_up", within="1y"),
    count("hospital_stay", within="1y"),
    since("hospital_stay"),
    count("emergency_visit", within="1y"),
    latest("length_of_stay"),
    summed("length_of_stay", within="1y"),
    latest("lab_count"),
    latest("procedure_count"),
    latest("diagnosis_count"),
    latest("inpatient_visits_prior_year"),
    latest("outpatient_visits_prior_year"),
    latest("emergency_visits_prior_year"),
)

# What the law protects in particular: in no profile, unless a county with a lawful reason switches it on.
SPECIAL = (ever("hiv"), ever("severe_mental_illness"), ever("tuberculosis"))


def declared(environment: Mapping[str, str] = os.environ) -> Profile:
    """Return the profile of this installation: PROFILE, and SPECIAL behind it where the switch is set to 1.

    Raises
    ------
    WeibingError
        If the switch is set to something else than 0 or 1.
    """
    said = environment.get(SWITCH, "0")
    if said not in {"0", "1"}:
        raise WeibingError(f'{SWITCH} is "{said}". Set it to 1 to take in the law\'s special categories, or to 0.')
    return Profile(*PROFILE.features, *SPECIAL, special_categories=True) if said == "1" else PROFILE
