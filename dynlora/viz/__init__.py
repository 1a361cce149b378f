"""What pages show, one folder a feature: frames in, figures and captions out; `kit/` is shared, `ui/` is streamlit."""
