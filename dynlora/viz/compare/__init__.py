"""Several runs side by side: seeds, paired differences, sweeps, results table.

One page in sections, each drawn only when it is opened. Results and capacity open the files of at most 50 runs; scatter
plots, sweeps and the results table take up to 500 from the list and open none. A mean is over seeds alone, or says what
else it hides.
"""
