"""The deep linear network's trainings.

settings   the settings, with the reason beside each default, and their checks
problem    the samples, the loss, the network; the losses at which training lingers
allocator  keeps the memory that NumPy frees in the process
"""
