"""Asks for a name over UDP and TCP: `python -c ... PORT NAME [ADDRESS...]`, by `helm test`.

Without addresses it asks the nameservers of this pod. Ends with 0 if all answered NOERROR.
"""

import sys

import dns.exception
import dns.message
import dns.query
import dns.rcode
import dns.resolver

_TIMEOUT_S = 5

port, name, *addresses = sys.argv[1:]
failed = 0
for address in addresses or [str(each) for each in dns.resolver.Resolver().nameservers]:
    for way, ask in (("UDP", dns.query.udp), ("TCP", dns.query.tcp)):
        try:
            reply = ask(dns.message.make_query(name, "A"), address, _TIMEOUT_S, int(port))
            said = dns.rcode.to_text(reply.rcode())
        except (OSError, dns.exception.DNSException) as error:
            said = f"no answer: {type(error).__name__} {error}"
        failed += said != "NOERROR"
        sys.stdout.write(f"{address} over {way}: {said}\n")
sys.exit(bool(failed))
