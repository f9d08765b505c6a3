"""Code for minibn's own tests: the registry of its ops and layers, laws about them, machines,
mutants. In a checkout pytest and the commands of `minibn.testing` import it as `suite`."""
