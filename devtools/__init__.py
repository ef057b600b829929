"""What a developer runs around the pack: the environment, the test host, a server driver, the demo.

Nothing in here is part of the node pack, and the pack imports nothing from here.
"""
