"""What free texts tell becomes events."""

from features.sources.texts import with_mentions
from features.translation import Translator
from features.vocabulary import builtin
from tests.tables import events_from


def test_a_fall_in_a_note_is_an_event_of_its_day():
    notes = events_from("""
        time       | code         | text                       | source
        2023-05-01 | LOCAL//note  | 3天前在家中不慎滑倒        | clinic
        2023-06-01 | LOCAL//note  | 近一年未再发生跌倒         | clinic
        2023-07-01 | LOCAL//note  | 昨日跌倒致右腕部骨折       | hospital
    """)
    told = with_mentions(notes)
    assert told["code"].to_list()[3:] == ["TEXT//fall", "TEXT//fall", "TEXT//injurious_fall"]
    assert [str(time.date()) for time in told["time"][3:]] == ["2023-05-01", "2023-07-01", "2023-07-01"]
    assert told["source"].to_list()[3:] == ["clinic", "hospital", "hospital"]
    assert told["text_value"][3:].null_count() == 3


def test_events_without_texts_stay_as_they_are():
    events = events_from("time | code | value\n2023-05-01 | sbp | 130")
    assert with_mentions(events).equals(events)


def test_what_a_text_tells_is_the_phenotype_of_a_reported_fall():
    notes = events_from("time | code | text\n2023-05-01 | LOCAL//note | 如厕时滑倒")
    found = Translator(["fall_found", "fall_reported", "fall_coded"], builtin()).frame(with_mentions(notes))
    assert sorted(found["concept"].cast(str)) == ["fall_found", "fall_reported"]
