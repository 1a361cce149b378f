"""The page of any kind of run that declares its conclusion and its panels, and what its forms share."""
