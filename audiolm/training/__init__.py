"""Training: one loop, one task object a component, one command line (`python -m audiolm.training --help`)."""
