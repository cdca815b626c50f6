"""Listening studies: made from continuations, run blind, stored so that no answer is lost, and analysed with intervals.

    definition    what a study is: one JSON file            presets     the protocols to start from
    clips         renders its sounds (with the service)     preflight   refuses clips that tell their condition
    protocol      who hears what, in which order; pure      answers     what a participant may answer; pure
    store         sessions and answers, in SQLite           library     a folder of studies: files beside the store
    statistics    tests and intervals over plain numbers    analysis    records -> figures
    export        CSV, JSON, data dictionary, methods       routes      HTTP (FastAPI, no gradio)

One direction: definition -> protocol, answers -> store -> analysis -> export. Nothing here imports gradio, and nothing
that a participant's browser is told says which condition a clip has.
"""
