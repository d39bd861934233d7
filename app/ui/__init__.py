"""The Streamlit pages: try a model, decide about its versions, watch it."""
