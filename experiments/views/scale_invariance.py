def plot(studies, out=None): pass
