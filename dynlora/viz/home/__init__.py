"""The first page: what dynlora is, the model as a picture that plays, where to begin, what runs now."""
