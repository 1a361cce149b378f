"""What features share and what needs no streamlit: theme, text, statistics, module maps."""
