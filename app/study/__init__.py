"""Listening studies: made from continuations, run blind, stored so that no answer is lost, and analysed with intervals.

    definition    what a study is: one JSON file              presets, recipe     what to start from, what to choose
    amendments    parts of the file to be otherwise
    clips         renders its sounds with the pipelines       mastering           one length, one loudness, plain files
    assembly      sounds -> clips, trials, checks             preflight           refuses clips that tell what they are
    headphones    the sounds of the screening

    protocol      who hears what, in which order; pure        answers             what may be answered, what is right
    views         what a participant's page is told           presentation        a planned trial -> a view
    store         sessions and answers, on a `database`       library, archive    the folder of studies; backups

    records       what is stored, as values                   statistics, mixed   tests, intervals, models; numbers only
    analysis      records -> figures                          export, dictionary, methods     records -> files
    commands      python -m app.study                         routes              HTTP (FastAPI, no gradio)

One direction: definition -> protocol, answers -> store -> records -> analysis -> export. Nothing here imports gradio,
and nothing that a participant's browser is told says which condition a clip has.
"""
