"""Figures and tables, made from the files of studies by `python -m experiments.plot`.

vgg, deep_linear, theorems, learning_rates, explosion, scale_invariance, only_bn, skip_init
                                              one kind of study each: `plot(studies, out)`
accuracy, distributions, shift, landscape, gradient_change, curvature    figures of VGG studies
deep_linear_probes                            figures of probes along the gradient, deep linear
..._tables                                    numbers beside the paper's, and small summaries
learning_rates_outcomes, ..._gains            outcomes over a grid of rates, and gains of norms
equal_loss, comparison_at_equal_loss          landscapes compared at equal training loss
step_sizes                                    which step sizes a band of the landscape is over
forest, claims_tables, report                 verdicts on claims
best_rates                                    each variant at the best rate of a grid
tables                                        shared by the tables
series                                        runs -> curves over seeds
plotting, step_axis                           colours, style, files; axes of steps
"""
