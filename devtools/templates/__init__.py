"""Make what stands in `example_workflows/` and `subgraphs/`.

python -m devtools.templates            draw them all in the real front end (needs a Chromium)
python -m devtools.templates thumbnails run them all and make their thumbnails (needs none)
"""
