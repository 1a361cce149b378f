"""Pictures of runs: frames in, plotly figures and sentences out; only `widgets` knows streamlit."""
