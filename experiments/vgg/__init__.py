"""The VGG trainings behind several experiments.

settings   what can be asked for, with the reason beside each default, and what can't work
runs       one training a variant, rate and seed, and what is measured on the way
"""
