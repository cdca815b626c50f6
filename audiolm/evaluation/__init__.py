"""The acceptance figures of a checkpoint on its hold-out: metrics, intervals, a command line and a report.

`rows` lists what can be measured; every row is a module of its own with pure metric functions and one `measure`, which
takes what is measured (`subject`), on what (`holdout`), and returns figures with n and a 95 % interval (`report`).
"""
