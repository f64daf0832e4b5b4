"""Reports: one self-contained page, drawn by plotly in the browser, that needs no network."""
