"""Any PEFT adapter: spectra and norms of a folder of others."""
