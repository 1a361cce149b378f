"""Where capacity goes: importance scores, budgets, ranks under a budget. Knows no method."""
