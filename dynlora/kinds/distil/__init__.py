"""A data-free distillation: what teachers wrote of their own, and how near one student is to all of them."""
