"""holdpay: buys from sms4sats with hold invoices, through the user's own LND node."""

__version__ = "0.1.0"
