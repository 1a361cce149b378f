"""What pages are made of and only streamlit can draw: cards, the address, pickers, live parts."""
