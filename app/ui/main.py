"""The pages and the navigation between them. Streamlit runs this file for every visitor, and again with every click."""

import streamlit as st

from app.ui.pages import alerts, live, models, predict

# A drawing of our own: Streamlit would have the browser fetch one of its icons from the Internet.
ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><circle cx="16" cy="16" r="11" fill="none" '
    'stroke="#2F6F9F" stroke-width="5" stroke-dasharray="46 24" stroke-linecap="round"/>'
    '<circle cx="16" cy="16" r="4" fill="#2F6F9F"/></svg>'
)

st.set_page_config(page_title="MLOps platform", page_icon=ICON, layout="wide")
# Lines as wide as a large screen are hard to read; and an answer stands close to its caption.
st.html(
    "<style>.stMainBlockContainer {max-width: 76rem; padding-top: 3.75rem; padding-bottom: 3rem} "
    ".st-key-answer h1 {padding: 0 0 .75rem; overflow-wrap: anywhere}</style>"
)
st.navigation(
    [
        st.Page(predict.page, title="Predict", icon=":material/online_prediction:", default=True),
        st.Page(models.page, title="Models", icon=":material/deployed_code_history:", url_path="models"),
        st.Page(live.page, title="Live", icon=":material/monitoring:", url_path="live"),
        # where the alerts' runbook_url leads, and the links of the page Live
        st.Page(alerts.page, title="Alerts", url_path="alerts", visibility="hidden"),
    ],
    position="top",
).run()
