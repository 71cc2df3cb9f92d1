"""A simulated LND and a simulated sms4sats: real servers on real sockets, for trials, the demo and the tests.

Nothing outside this package imports it, except the command `holdpayd sandbox` and the tests.
"""
