"""The VGG trainings behind several experiments.

settings     the settings, with the reason beside each default, and their checks
runs         one training a variant, rate and seed, and its measurements
classifiers  trainings of networks that an experiment builds itself
"""
