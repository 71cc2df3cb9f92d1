"""holdpay: buys from sms4sats with hold invoices, through the user's own LND node."""

import os

__version__ = "0.1.0"

# Names are to be resolved as the system resolves them (hosts file, .local, systemd-resolved). gRPC reads this once, at
# its import; what the operator has set counts.
os.environ.setdefault("GRPC_DNS_RESOLVER", "native")
