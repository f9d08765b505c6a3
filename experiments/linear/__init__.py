"""The deep linear network's trainings.

settings   what can be asked for, with the reason beside each default, and what can't work
problem    the samples, the loss, the network; the losses at which training lingers
allocator  memory that NumPy frees should stay ours
"""
