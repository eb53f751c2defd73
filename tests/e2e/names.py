"""A name that Streamlit and Plotly would turn into links, emoji, icons, arrows and markup."""

NAME = (
    "www.evil.example https://evil.example/x ann@evil.example mailto:ann@evil.example :smile: :material/home: "
    "a -> b **b** <a href='https://evil.example'>y</a>"
)
