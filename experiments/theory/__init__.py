"""What the theorems are measured on.

settings   what can be asked for, with the reason beside each default, and what can't work
records    the identities and inequalities, on random losses and unit by unit along a training
"""
