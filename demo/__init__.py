"""One session, two hosts: the real agent writes on "host A" and goes on from "host B".

Run it with ``python -m demo``. Without ``--live`` nothing leaves this machine: a scripted model
(:mod:`.script`) answers over loopback.
"""
