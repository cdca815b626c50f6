"""How fast the system is: `python -m audiolm.benchmark` (ACCEPTANCE P1 and P5). Tests never time anything."""
