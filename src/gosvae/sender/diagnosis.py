"""Diagnosis of a failed connection: whether only one end of the link uses TLS, or a certificate is not accepted.

gRPC reports most of these failures as a closed socket. A second connection, which ends after the TLS handshake, shows
the cause.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from functools import partial

from gosvae.errors import LinkError
from gosvae.protocol.security import ClientTls, Endpoint

PROBE_S = 5.0
"""Seconds that the second connection may take."""
ALERT_S = 1.0
"""Seconds that a receiver may take to refuse a certificate after the handshake."""


async def tls_problem(endpoint: Endpoint, tls: ClientTls | None) -> LinkError | None:
    """Return the error that says why TLS fails between both ends; None if no reason is found.

    Args:
        endpoint: address of the receiver.
        tls: certificates of the sender; None if it does not encrypt.
    """
    try:
        # In a thread: the streams of asyncio do not tell of an alert after the handshake.
        return await asyncio.to_thread(_of_plain_sender if tls is None else partial(_of_tls_sender, tls=tls), endpoint)
    except OSError:  # nobody listens there, or it says nothing
        return None


def _of_plain_sender(endpoint: Endpoint) -> LinkError | None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        _handshake(endpoint, context)
    except ssl.SSLError:
        return None
    return LinkError(
        f"the receiver at {endpoint} uses TLS and this sender does not: give the certificate of the authority that "
        "signed the receiver's",
        argument="tls",
    )


def _of_tls_sender(endpoint: Endpoint, tls: ClientTls) -> LinkError | None:
    context = ssl.create_default_context(cafile=None if tls.authority is None else str(tls.authority))
    context.set_alpn_protocols(["h2"])
    if tls.certificate is not None:
        context.load_cert_chain(tls.certificate, tls.key)
    reason = ""
    try:
        if _handshake(endpoint, context):
            return None
    except ssl.SSLCertVerificationError as error:
        return LinkError(f"the certificate of the receiver at {endpoint} is not accepted: {error.verify_message}")
    except ssl.SSLError as error:
        reason = (error.reason or str(error)).replace("_", " ").lower()
        if "wrong version number" in reason or "record layer failure" in reason:
            return LinkError(
                f"what listens at {endpoint} does not use TLS and this sender does: start the receiver with a "
                "certificate, or send without encryption"
            )
        if "alert" not in reason:
            return None
    what = "asks for a certificate of this sender" if tls.certificate is None else "refuses this sender's certificate"
    how = reason or "it ends the connection after the handshake"
    return LinkError(f"the receiver at {endpoint} {what} ({how}): its log says why")


def _handshake(endpoint: Endpoint, context: ssl.SSLContext) -> bool:
    """Do a TLS handshake; return whether the connection is there afterwards.

    With TLS 1.3 a receiver checks the sender's certificate after the handshake, by the sender's view. If it does not
    accept it, it ends the connection; otherwise a gRPC server begins to speak.
    """
    with (
        socket.create_connection((endpoint.host, endpoint.port), timeout=PROBE_S) as plain,
        context.wrap_socket(plain, server_hostname=endpoint.host) as secure,
    ):
        secure.settimeout(ALERT_S)
        try:
            return bool(secure.recv(1))
        except TimeoutError:
            return True
