"""What only minibn's own tests use: the registry of its ops and layers, laws about them, machines,
mutants. In a checkout pytest finds it as `suite`, and so do the commands of `minibn.testing`."""
