"""A trained adapter made smaller without training: components by their effect, and one threshold over all of them."""
