"""What the score of the detector is worth: rows D1 to D11 of the acceptance list, each with n and a 95 % interval.

`inputs` holds what is measured on, `judging` asks the detector exactly as the pipeline does, `scores` is the pure
arithmetic of scores and labels; every row is a module of its own with one `measure`. `command` is the command line.
"""
