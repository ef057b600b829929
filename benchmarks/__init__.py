"""Side-by-side measurements on the real host: `python3 dev.py bench`.

Speed and memory are given as ratios to what an artist would use instead, the host's own ControlNet, measured in
the same process in turn: numbers of two runs, or of two machines, do not compare.
"""
