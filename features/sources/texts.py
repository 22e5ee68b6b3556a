"""What free texts tell becomes events beside them: a fall in a note is a fall (`TEXT//fall`)."""

import polars as pl

from features.vocabulary import TEXT, text_concepts


def with_mentions(events: pl.DataFrame) -> pl.DataFrame:
    """Return the events, and behind them those that their texts mention and do not deny.

    An event that is a mention itself is left alone. A mention bears the resident, the time and the
    further columns of the event with the text.

    Parameters
    ----------
    events : columns of the event store
    """
    told = events.filter(pl.col("text_value").is_not_null() & ~pl.col("code").str.starts_with(f"{TEXT}//"))
    texts = told["text_value"].unique()
    codes = {text: [f"{TEXT}//{concept}" for concept in text_concepts(text)] for text in texts}
    if not any(codes.values()):
        return events
    mentions = (
        told.with_columns(
            code=pl.col("text_value").replace_strict(codes, return_dtype=pl.List(pl.String)),
            numeric_value=pl.lit(None, pl.Float32),
            text_value=pl.lit(None, pl.String),
            unit=pl.lit(None, pl.String),
        )
        .explode("code")
        .drop_nulls("code")
    )
    return pl.concat([events, mentions.select(events.columns)])
