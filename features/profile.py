"""THE list of features: what Weibing knows about a resident at an index time.

One declaration serves a million residents and one. Its version is part of every model that was trained on it.
"""

import hashlib
from collections import Counter

from features.errors import WeibingError, did_you_mean
from features.measures import (
    Feature,
    active,
    age,
    count,
    ever,
    latest,
    maximum,
    mean,
    minimum,
    since,
    since_first,
    slope,
    standard_deviation,
    static,
)


class Profile:
    """A declaration of features, in order.

    Raises
    ------
    WeibingError
        If two features bear the same name.
    """

    def __init__(self, *features: Feature) -> None:
        self.features = features
        self.names = [feature.name for feature in features]
        twice = [name for name, times in Counter(self.names).items() if times > 1]
        if twice:
            raise WeibingError(f"The profile declares {', '.join(twice)} more than once.")

    @property
    def version(self) -> str:
        """A fingerprint of the declaration, twelve hexadecimal digits."""
        return hashlib.sha256(repr(self.features).encode()).hexdigest()[:12]

    def __getitem__(self, name: str) -> Feature:
        if name not in self.names:
            raise WeibingError(f'The profile has no feature "{name}".{did_you_mean(name, self.names)}')
        return self.features[self.names.index(name)]

    def __len__(self) -> int:
        return len(self.features)


PROFILE = Profile(
    # who
    age(),
    static("female"),
    latest("education"),
    latest("rural"),
    latest("living_alone"),
    latest("family_history_hypertension"),
    # how they live
    latest("smoking"),
    count("smoking"),
    since("smoking"),
    since_first("smoking"),
    latest("drinking"),
    latest("exercise"),
    latest("salt_intake"),
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
    maximum("dbp", within="2y"),
    slope("dbp", within="5y"),
    latest("heart_rate"),
    # body
    latest("height"),
    latest("bmi"),
    slope("bmi", within="5y"),
    latest("weight"),
    latest("waist"),
    # sugar
    latest("glucose"),
    latest("glucose_fasting"),
    since_first("glucose_fasting"),
    mean("glucose_fasting", within="2y"),
    maximum("glucose_fasting", within="5y"),
    slope("glucose_fasting", within="5y"),
    latest("hba1c"),
    mean("hba1c", within="2y"),
    maximum("hba1c", within="5y"),
    slope("hba1c", within="5y"),
    # kidney
    latest("creatinine"),
    since_first("creatinine"),
    latest("egfr"),
    minimum("egfr", within="5y"),
    slope("egfr", within="5y"),
    latest("uacr"),
    maximum("uacr", within="5y"),
    latest("urine_protein"),
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
    latest("fib4"),
    mean("fib4", within="5y"),
    maximum("fib4"),
    count("fib4"),
    since("fib4"),
    since_first("fib4"),
    latest("haemoglobin"),
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
    ever("diabetes"),
    ever("dyslipidaemia"),
    ever("myocardial_infarction"),
    ever("angina"),
    ever("heart_failure"),
    ever("stroke"),
    ever("atrial_fibrillation"),
    ever("peripheral_artery_disease"),
    ever("fatty_liver"),
    since_first("fatty_liver"),
    ever("ckd"),
    ever("diabetic_kidney_disease"),
    ever("diabetic_retinopathy"),
    ever("diabetic_neuropathy"),
    ever("diabetic_foot"),
    ever("copd"),
    ever("cancer"),
    ever("dementia"),
    ever("depression"),
    ever("parkinson"),
    ever("osteoporosis"),
    ever("arthritis"),
    ever("visual_impairment"),
    ever("dizziness"),
    ever("gait_problem"),
    ever("incontinence"),
    ever("hypotension"),
    ever("walking_aid"),
    # falls and function
    count("fall", within="1y"),
    count("fall", within="3y"),
    since("fall"),
    ever("fracture"),
    latest("timed_up_and_go"),
    latest("grip_strength"),
    latest("adl_score"),
    # drugs
    active("antihypertensive", within="180d"),
    active("diuretic", within="180d"),
    active("insulin", within="180d"),
    active("oral_glucose_lowering", within="180d"),
    active("statin", within="180d"),
    active("antiplatelet", within="180d"),
    active("anticoagulant", within="180d"),
    active("sedative", within="180d"),
    active("antidepressant", within="180d"),
    active("antipsychotic", within="180d"),
    active("opioid", within="180d"),
    active("antiepileptic", within="180d"),
    latest("medication_count"),
    # contacts
    count("examination", within="3y"),
    since("examination"),
    since_first("examination"),
    count("outpatient_visit", within="1y"),
    count("follow_up_visit", within="1y"),
    count("hospital_stay", within="1y"),
    count("emergency_visit", within="1y"),
    latest("length_of_stay"),
    latest("lab_count"),
    latest("procedure_count"),
    latest("diagnosis_count"),
    latest("inpatient_visits_prior_year"),
    latest("outpatient_visits_prior_year"),
    latest("emergency_visits_prior_year"),
)
