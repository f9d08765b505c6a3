"""Measurements of the theorems, on random losses and along a training.

settings   the settings, with the reason beside each default, and their checks
records    the identities and inequalities, on random losses and unit by unit along a training
"""
